"""What a copy reads: found, allowed to the caller, meeting its conditions, and opened with its customer's key.

Source: Amazon S3 API Reference, CopyObject, "Permissions".
"""

from __future__ import annotations

from cluster.objectstore import CopySource
from s3gw import access
from s3gw.call import Call, check_expected_owner
from s3gw.protocol.authorize import Verdict, owns_everything
from s3gw.protocol.conditions import evaluate_copy_source
from s3gw.protocol.copy_source import SourceName, parse_copy_source, parse_directive
from s3gw.protocol.encryption import parse_source_key
from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.permissions import choose_permission
from s3gw.respond import Headers
from storage.base.errors import NoSuchBucket, NoSuchKey, NoSuchVersion
from storage.model import Bucket, Version, Versioning


async def open_source(call: Call) -> CopySource:
    """What x-amz-copy-source names. NoSuchBucket, NoSuchKey, AccessDenied, PreconditionFailed, CustomerKeyRefused."""
    customer_key = parse_source_key(call.headers)
    source = parse_copy_source(call.headers["x-amz-copy-source"])
    try:
        bucket = await call.services.directory.bucket(source.bucket)
    except NoSuchBucket:
        raise S3Error("NoSuchBucket", BucketName=source.bucket) from None
    check_expected_owner(bucket, call.headers.get("x-amz-source-expected-bucket-owner"))
    version = await _read_version(call, bucket, source)
    if version.is_marker:
        raise S3Error(
            "InvalidRequest",
            "The source of a copy request may not specifically refer to a delete marker by version id.",
        )
    evaluate_copy_source(call.headers, version.etag, version.last_modified_ms)
    if customer_key is None and not version.attributes.sse:
        return CopySource(bucket, version)
    version = call.services.objects.unlock(bucket, version, customer_key)
    return CopySource(bucket, version)._replace(customer_key=customer_key)


def format_source_version(source: CopySource) -> Headers:
    """Which version was read, where there may be several."""
    if source.bucket.versioning is Versioning.UNVERSIONED:
        return []
    return [(b"x-amz-copy-source-version-id", source.version.version_id.encode("ascii"))]


async def _read_version(call: Call, bucket: Bucket, source: SourceName) -> Version:
    """The version, once it is known that the caller may read it and the tags that go with it: one metadata read."""
    version_id = source.version_id
    query = {} if version_id is None else {"versionId": version_id}
    permission = choose_permission("s3:GetObject", version_id)
    question = access.Question(bucket, permission, source.object_key, version_id, query, seen=access.NOTHING_SEEN)
    in_full = owns_everything(call.user, bucket)
    try:
        version = (await call.services.objects.head(bucket, source.object_key, version_id)).version
    except (NoSuchKey, NoSuchVersion) as error:
        if not in_full:
            denied = access.judge(call, question).verdict is Verdict.DENY
            if denied or not await access.may_know_of(call, bucket, source.object_key):
                raise S3Error("AccessDenied") from None
        raise S3Error(type(error).__name__, Key=source.object_key.decode()) from None
    question = question._replace(seen=access.describe(version))
    if not in_full or version.owner_id != bucket.owner_id:
        await access.demand(call, question)
    if version.attributes.tags and _copies_tags(call):
        if not in_full:
            tagging = choose_permission("s3:GetObjectTagging", version_id)
            await access.demand(call, question._replace(permission=tagging))
        await call.authorize_tagging("s3:PutObjectTagging", version.attributes.tags)
    return version


def _copies_tags(call: Call) -> bool:
    if call.route.operation is not Operation.COPY_OBJECT:
        return False
    return not parse_directive(call.headers, "x-amz-tagging-directive")
