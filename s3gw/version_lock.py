"""What every handler that makes a version asks of object lock, and who may pass over a governance retention.

A bucket without object lock costs a look at its settings and at three headers.
"""

from __future__ import annotations

import msgspec

from s3gw.call import Call
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_lock import (
    BYPASS_HEADER,
    NO_LOCK,
    apply_default,
    format_lock_headers,
    names_lock,
    parse_lock,
)
from s3gw.respond import Headers
from storage.model import Attributes, ObjectLock, Version


def lock_attributes(call: Call, attributes: Attributes, *, with_default: bool = True) -> Attributes:
    """The attributes with the lock of a version made now: by the request's headers, else the bucket's default.

    Whatever lock they had is taken away: a copy does not inherit its source's. with_default: False for an upload,
    whose version is made when it is completed. The permissions that the headers need were asked for by dispatch.
    """
    settings, headers = call.bucket.settings, call.headers
    if not settings and not names_lock(headers):
        return _with_lock(attributes, NO_LOCK)
    now_ms = call.services.clock.now_ms()
    lock = parse_lock(headers, settings, now_ms)
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


async def show_lock(call: Call, version: Version) -> Headers:
    """The lock in the headers of a GET or HEAD, as much of it as the caller may read (AWS API, HeadObject)."""
    lock = version.attributes.lock
    if not lock.mode and not lock.legal_hold:
        return []
    version_id = version.version_id
    if lock.mode and not await call.may("s3:GetObjectRetention", None, version_id):
        lock = ObjectLock(legal_hold=lock.legal_hold)
    if lock.legal_hold and not await call.may("s3:GetObjectLegalHold", None, version_id):
        lock = ObjectLock(lock.mode, lock.retain_until_ms)
    return format_lock_headers(lock)


async def bypasses_governance(call: Call, object_key: bytes | None = None, version_id: str | None = None) -> bool:
    """Whether the request asks to pass over a governance retention, and its caller may."""
    if call.headers.get(BYPASS_HEADER, "").strip().lower() != "true":
        return False
    return await call.may("s3:BypassGovernanceRetention", object_key, version_id)


def _with_lock(attributes: Attributes, lock: ObjectLock) -> Attributes:
    return attributes if attributes.lock == lock else msgspec.structs.replace(attributes, lock=lock)
