"""Object lock of a bucket, retention and legal hold of a version. Source: Amazon S3 API Reference, Get and
PutObjectLockConfiguration, Get and PutObjectRetention, Get and PutObjectLegalHold."""

from __future__ import annotations

from s3gw.bucket_setting import read_setting, store_setting
from s3gw.call import Call, Response
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_lock import (
    format_legal_hold,
    format_lock_configuration,
    format_retention,
    parse_legal_hold,
    parse_lock_configuration,
    parse_retention,
    require_lock_setting,
)
from s3gw.protocol.versions import find_version_id
from s3gw.respond import XML_TYPE, Headers
from s3gw.version_answer import refuse_marker
from s3gw.version_lock import bypasses_governance
from storage.base.errors import InvalidBucketState, NoSuchVersion
from storage.metadata.commands import OBJECT_LOCK_SETTING, ChangeObject
from storage.model import Version


async def get_object_lock_configuration(call: Call) -> Response:
    """Enabled, and the default retention where there is one."""
    stored = read_setting(call, OBJECT_LOCK_SETTING, "ObjectLockConfigurationNotFoundError")
    return Response(200, [XML_TYPE], stored)


async def put_object_lock_configuration(call: Call) -> Response:
    """Enable object lock, for good, or change the default retention. What is there already keeps the lock it has."""
    document = format_lock_configuration(parse_lock_configuration(await call.read_document()))
    try:
        await store_setting(call, OBJECT_LOCK_SETTING, document)
    except InvalidBucketState:
        raise S3Error(
            "InvalidBucketState",
            "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration",
        ) from None
    return Response(200)


async def get_object_retention(call: Call) -> Response:
    """Mode and date; NoSuchObjectLockConfiguration for a version without."""
    version = await _read_version(call)
    return Response(200, _identify(version.version_id), format_retention(version.attributes.lock))


async def put_object_retention(call: Call) -> Response:
    """Set, prolong or (with bypass, a governance one) shorten and lift."""
    raw = await call.read_document()
    require_lock_setting(call.bucket.settings)
    version_id = find_version_id(call.query)
    retention = parse_retention(raw, call.services.clock.now_ms())
    bypass = await bypasses_governance(call, version_id=version_id)
    return await _change(
        call,
        ChangeObject(call.bucket.bucket_id, call.object_key, version_id, retention=retention, bypass_governance=bypass),
    )


async def get_object_legal_hold(call: Call) -> Response:
    """ON, or OFF also for a version that never had one."""
    version = await _read_version(call)
    return Response(200, _identify(version.version_id), format_legal_hold(version.attributes.lock))


async def put_object_legal_hold(call: Call) -> Response:
    """Set or lift it; whoever may put one may lift it."""
    raw = await call.read_document()
    require_lock_setting(call.bucket.settings)
    hold = parse_legal_hold(raw)
    version_id = find_version_id(call.query)
    return await _change(call, ChangeObject(call.bucket.bucket_id, call.object_key, version_id, legal_hold=hold))


async def _read_version(call: Call) -> Version:
    reading = await call.services.objects.head(call.bucket, call.object_key, find_version_id(call.query))
    if reading.version.is_marker:
        raise _refuse_marker(call)
    require_lock_setting(call.bucket.settings)
    return reading.version


async def _change(call: Call, command: ChangeObject) -> Response:
    try:
        changed = await call.services.objects.change(command)
    except NoSuchVersion as error:
        if error.details.get("is_marker"):
            raise _refuse_marker(call) from None
        raise
    return Response(200, [(b"x-amz-version-id", changed.version_id.encode("ascii"))])


def _refuse_marker(call: Call) -> S3Error:
    return refuse_marker(call).with_headers({"allow": "DELETE"})


def _identify(version_id: str) -> Headers:
    return [XML_TYPE, (b"x-amz-version-id", version_id.encode("ascii"))]
