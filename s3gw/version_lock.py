"""What every handler that makes a version asks of object lock, and who may pass over a governance retention.

A bucket without object lock costs a look at its settings and at three headers.
"""

from __future__ import annotations

import msgspec

from s3gw.call import Call
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_lock import BYPASS_HEADER, apply_default, names_lock, parse_lock
from storage.model import Attributes, ObjectLock


async def lock_attributes(call: Call, attributes: Attributes, *, with_default: bool = True) -> Attributes:
    """The attributes with the lock of a version made now: by the request's headers, else the bucket's default.

    Whatever lock they had is taken away: a copy does not inherit its source's. with_default: False for an upload,
    whose version is made when it is completed. AccessDenied without the permission that the headers need.
    """
    settings, headers = call.bucket.settings, call.headers
    if not settings and not names_lock(headers):
        return _with_lock(attributes, ObjectLock())
    now_ms = call.services.clock.now_ms()
    lock = parse_lock(headers, settings, now_ms)
    if lock.mode:
        await call.authorize("s3:PutObjectRetention")
    if lock.legal_hold:
        await call.authorize("s3:PutObjectLegalHold")
    return _with_lock(attributes, apply_default(lock, settings, now_ms) if with_default else lock)


def lock_completed(call: Call, attributes: Attributes) -> Attributes:
    """Those of an upload that is completed now: without a retention of its own it gets the bucket's default."""
    settings = call.bucket.settings
    if not settings:
        return attributes
    return _with_lock(attributes, apply_default(attributes.lock, settings, call.services.clock.now_ms()))


def require_proof(attributes: Attributes, proves_itself: bool) -> None:
    """InvalidRequest for a body under a lock that no Content-MD5 and no checksum vouches for, as AWS has it: what
    cannot be deleted any more should at least be what was meant."""
    if attributes.lock.mode and not proves_itself:
        raise S3Error(
            "InvalidRequest",
            "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
            " parameters",
        )


async def bypasses_governance(call: Call, object_key: bytes | None = None, version_id: str | None = None) -> bool:
    """Whether the request asks to pass over a governance retention, and its caller may."""
    if call.headers.get(BYPASS_HEADER, "").strip().lower() != "true":
        return False
    return await call.may("s3:BypassGovernanceRetention", object_key, version_id)


def _with_lock(attributes: Attributes, lock: ObjectLock) -> Attributes:
    return attributes if attributes.lock == lock else msgspec.structs.replace(attributes, lock=lock)
