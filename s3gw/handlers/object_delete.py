"""DeleteObject and DeleteObjects. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.conditions import parse_delete_conditions
from s3gw.protocol.delete_list import fail_delete, parse_delete_list
from s3gw.protocol.documents import DeleteOutcome, format_deleted
from s3gw.protocol.errors import S3Error
from s3gw.protocol.permissions import choose_permission
from s3gw.protocol.versions import find_version_id
from s3gw.protocol.xml import XML_BYTES_MAX
from s3gw.refusals import REFUSAL_CODES, REFUSAL_MESSAGES
from s3gw.respond import XML_TYPE, Headers
from s3gw.version_lock import bypasses_governance
from storage.metadata.commands import Deleted, DeleteTarget


async def delete_object(call: Call) -> Response:
    """204, also for a key that is not there."""
    version_id = find_version_id(call.query)
    target = DeleteTarget(call.object_key, version_id, parse_delete_conditions(call.headers))
    bypass = await bypasses_governance(call, version_id=version_id)
    (deleted,) = await call.services.objects.delete(call.bucket, [target], bypass_governance=bypass)
    if deleted.refusal:
        raise S3Error(REFUSAL_CODES[deleted.refusal], REFUSAL_MESSAGES.get(deleted.refusal))
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
    items, quiet = parse_delete_list(await body.read_small_body(XML_BYTES_MAX))
    items = [await _authorize(call, item) if isinstance(item, DeleteTarget) else item for item in items]
    targets = [item for item in items if isinstance(item, DeleteTarget)]
    done = iter(await _delete(call, targets) if targets else [])
    outcomes = [_judge(item, next(done)) if isinstance(item, DeleteTarget) else item for item in items]
    return Response(200, [XML_TYPE], format_deleted(outcomes, quiet))


async def _authorize(call: Call, target: DeleteTarget) -> DeleteTarget | DeleteOutcome:
    """The target, or the outcome of one that the caller may not delete."""
    permission = choose_permission("s3:DeleteObject", target.version_id)
    if await call.may(permission, target.object_key, target.version_id):
        return target
    return fail_delete(target.object_key, target.version_id, "AccessDenied")


async def _delete(call: Call, targets: list[DeleteTarget]) -> list[Deleted]:
    """A governance retention is passed over for all of them or for none: the caller must be allowed to for each."""
    bypass = True
    for target in targets:
        bypass = bypass and await bypasses_governance(call, target.object_key, target.version_id)
    return await call.services.objects.delete(call.bucket, targets, bypass_governance=bypass)


def _judge(target: DeleteTarget, deleted: Deleted) -> DeleteOutcome:
    if deleted.refusal:
        code, message = REFUSAL_CODES[deleted.refusal], REFUSAL_MESSAGES.get(deleted.refusal)
        return fail_delete(target.object_key, target.version_id, code, message)
    return DeleteOutcome(
        target.object_key,
        target.version_id,
        marker_version_id=deleted.version_id if deleted.is_marker else None,
        is_marker=deleted.is_marker,
    )
