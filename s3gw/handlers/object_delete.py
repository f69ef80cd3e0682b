"""DeleteObject and DeleteObjects. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.conditions import parse_etags, parse_write_conditions
from s3gw.protocol.documents import DeleteOutcome, format_deleted
from s3gw.protocol.errors import CATALOGUE, S3Error
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX
from s3gw.protocol.versions import check_version_id, find_version_id
from s3gw.protocol.xml import XML_BYTES_MAX, Element, parse_xml
from s3gw.refusals import REFUSAL_CODES
from s3gw.respond import XML_TYPE, Headers
from storage.metadata.commands import Conditions, Deleted, DeleteTarget

DELETE_KEYS_MAX = 1000
_DIRECTORY_CONDITIONS = ("x-amz-if-match-last-modified-time", "x-amz-if-match-size")


async def delete_object(call: Call) -> Response:
    """204, also for a key that is not there."""
    for name in _DIRECTORY_CONDITIONS:
        if call.headers.get(name):
            raise S3Error("NotImplemented", Header=name)
    version_id = find_version_id(call.query)
    target = DeleteTarget(call.object_key, version_id, parse_write_conditions(call.headers))
    (deleted,) = await call.services.objects.delete(call.bucket, [target])
    if deleted.refusal:
        raise S3Error(REFUSAL_CODES[deleted.refusal])
    headers: Headers = []
    if deleted.is_marker:
        headers.append((b"x-amz-delete-marker", b"true"))
    if deleted.version_id is not None:
        headers.append((b"x-amz-version-id", deleted.version_id.encode("ascii")))
    return Response(204, headers)


async def delete_objects(call: Call) -> Response:
    """Up to 1,000 keys, one outcome each."""
    body = call.open_body()
    if not body.proves_itself:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5")
    root = parse_xml(await body.read_small_body(XML_BYTES_MAX), "Delete")
    quiet = (root.child_text("Quiet") or "").strip().lower() == "true"
    items = [_parse_item(element) for element in root.all("Object")]
    if not 1 <= len(items) <= DELETE_KEYS_MAX:
        raise S3Error("MalformedXML")
    targets = [item for item in items if isinstance(item, DeleteTarget)]
    done = iter(await call.services.objects.delete(call.bucket, targets) if targets else [])
    outcomes = [_judge(item, next(done)) if isinstance(item, DeleteTarget) else item for item in items]
    return Response(200, [XML_TYPE], format_deleted(outcomes, quiet))


def _parse_item(element: Element) -> DeleteTarget | DeleteOutcome:
    """A target, or already the outcome of one that no bucket can hold."""
    name = element.child_text("Key")
    if not name:
        raise S3Error("MalformedXML")
    object_key = name.encode()
    version = element.child_text("VersionId")
    if element.child("LastModifiedTime") is not None or element.child("Size") is not None:
        return _failed(object_key, version, "NotImplemented")
    if len(object_key) > OBJECT_KEY_BYTES_MAX:
        return _failed(object_key, version, "KeyTooLongError")
    version_id = None
    if version:
        try:
            version_id = check_version_id(version)
        except S3Error:
            return _failed(object_key, version, "NoSuchVersion")
    etag = element.child_text("ETag")
    tags = parse_etags(etag) if etag else frozenset()
    return DeleteTarget(object_key, version_id, Conditions(if_match=min(tags)) if tags else Conditions())


def _judge(target: DeleteTarget, deleted: Deleted) -> DeleteOutcome:
    if deleted.refusal:
        return _failed(target.object_key, target.version_id, REFUSAL_CODES[deleted.refusal])
    return DeleteOutcome(
        target.object_key,
        target.version_id,
        marker_version_id=deleted.version_id if deleted.is_marker else None,
        is_marker=deleted.is_marker,
    )


def _failed(object_key: bytes, version_id: str | None, code: str) -> DeleteOutcome:
    return DeleteOutcome(object_key, version_id, code=code, message=CATALOGUE[code].message)
