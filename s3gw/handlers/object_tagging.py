"""Get-, Put- and DeleteObjectTagging. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.tags import format_tags, parse_object_tagging
from s3gw.protocol.versions import find_version_id
from s3gw.respond import XML_TYPE, Headers
from s3gw.version_answer import identify_version, refuse_marker
from storage.base.errors import NoSuchVersion
from storage.metadata.commands import ChangeObject


async def get_object_tagging(call: Call) -> Response:
    """The tags of a version, none for one without."""
    reading = await call.services.objects.head(call.bucket, call.object_key, find_version_id(call.query))
    version = reading.version
    call.confirm(version)
    if version.is_marker:
        raise refuse_marker(call)
    return Response(
        200, [XML_TYPE, *identify_version(call.bucket, version.version_id)], format_tags(version.attributes.tags)
    )


async def put_object_tagging(call: Call) -> Response:
    """Replace all tags of a version; what it holds and when it was modified stays."""
    version_id = find_version_id(call.query)
    tags = parse_object_tagging(await call.read_document())
    await call.authorize_tagging("s3:PutObjectTagging", tags)
    return Response(200, await _change(call, version_id, tags))


async def delete_object_tagging(call: Call) -> Response:
    """204, also for a version without tags."""
    return Response(204, await _change(call, find_version_id(call.query), {}))


async def _change(call: Call, version_id: str | None, tags: dict[str, str]) -> Headers:
    command = ChangeObject(call.bucket.bucket_id, call.object_key, version_id, tags=tags)
    try:
        changed = await call.services.objects.change(command)
    except NoSuchVersion as error:
        if error.details.get("is_marker"):
            raise refuse_marker(call) from None
        raise
    return identify_version(call.bucket, changed.version_id)
