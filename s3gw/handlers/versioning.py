"""Get and PutBucketVersioning, ListObjectVersions. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.errors import S3Error
from s3gw.protocol.version_list import format_versions, parse_list_versions
from s3gw.protocol.versioning import format_versioning, parse_versioning
from s3gw.respond import XML_TYPE
from storage.base.errors import InvalidBucketState
from storage.metadata.interface import VersionPage

_NO_VERSIONS = VersionPage((), (), None)


async def get_bucket_versioning(call: Call) -> Response:
    """The state; an empty document when the bucket was never versioned."""
    return Response(200, [XML_TYPE], format_versioning(call.bucket.versioning))


async def put_bucket_versioning(call: Call) -> Response:
    """Enabled or Suspended; what is there keeps its versions either way."""
    versioning = parse_versioning(await call.read_document())
    try:
        await call.services.directory.set_versioning(call.bucket, versioning)
    except InvalidBucketState:
        raise S3Error(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
        ) from None
    return Response(200)


async def list_object_versions(call: Call) -> Response:
    """Every version and delete marker, a page at a time."""
    query = parse_list_versions(call.query)
    page = _NO_VERSIONS
    if query.max_keys:
        page = await call.services.objects.list_versions(
            call.bucket,
            prefix=query.prefix,
            delimiter=query.delimiter,
            after=(query.key_marker, query.version_id_marker),
            limit=query.max_keys,
        )
    owners = await call.find_owner_names({entry.owner_id for entry in page.entries})
    return Response(200, [XML_TYPE], format_versions(call.bucket.name, query, page, owners))
