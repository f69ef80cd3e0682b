"""Create, Head and DeleteBucket. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.access_lists import plan_bucket_access
from s3gw.call import Call, Response
from s3gw.protocol.authorize import ACL_SETTING
from s3gw.protocol.errors import S3Error
from s3gw.protocol.naming import check_bucket_name
from s3gw.protocol.object_lock import format_lock_configuration, parse_lock_enabled
from s3gw.protocol.xml import parse_xml
from s3gw.respond import XML_TYPE, Headers
from storage.base.errors import BucketAlreadyExists, LimitExceeded
from storage.metadata.commands import OBJECT_LOCK_SETTING
from storage.model import Versioning

REGION_DEFAULT = "us-east-1"
_REGION_ALIASES = {"EU": "eu-west-1", "US": REGION_DEFAULT}


async def create_bucket(call: Call) -> Response:
    """Made, or already the caller's own: then 200 in us-east-1 and BucketAlreadyOwnedByYou elsewhere, as AWS has it.

    A bucket that is there is never changed: where another ACL is asked for than it has, it is BucketAlreadyExists (AWS
    sets the ACL back in us-east-1).
    """
    name = call.route.bucket
    check_bucket_name(name)
    _check_location(await call.read_document(), call.services.settings.region)
    region = call.services.settings.region
    directory = call.services.directory
    settings = await plan_bucket_access(
        directory, call.user.canonical_id, call.headers, call.services.settings.bucket_defaults
    )
    versioning = Versioning.UNVERSIONED
    if parse_lock_enabled(call.headers):
        settings[OBJECT_LOCK_SETTING] = format_lock_configuration(None)
        versioning = Versioning.ENABLED
    try:
        await directory.create_bucket(name, call.user, region, settings, versioning)
    except BucketAlreadyExists as error:
        if error.details.get("owner_id") != call.user.canonical_id:
            raise S3Error("BucketAlreadyExists", BucketName=name) from None
        if region != REGION_DEFAULT:
            raise S3Error("BucketAlreadyOwnedByYou", BucketName=name) from None
        if (await directory.bucket(name)).settings.get(ACL_SETTING) != settings.get(ACL_SETTING):
            raise S3Error("BucketAlreadyExists", BucketName=name) from None
    except LimitExceeded:
        raise S3Error("TooManyBuckets") from None
    return Response(200, [(b"location", b"/" + name.encode("ascii"))])


async def head_bucket(call: Call) -> Response:
    """200 and where the bucket is."""
    return Response(200, [XML_TYPE, *_region_headers(call.bucket.region)])


async def delete_bucket(call: Call) -> Response:
    """204; only objects and versions stand in its way."""
    await call.services.directory.delete_bucket(call.bucket)
    return Response(204)


def _region_headers(region: str) -> Headers:
    return [(b"x-amz-bucket-region", region.encode("latin-1", "replace")), (b"x-amz-access-point-alias", b"false")]


def _check_location(document: bytes, region: str) -> None:
    """The LocationConstraint, where one is given, is this server's region."""
    if not document.strip():
        return
    root = parse_xml(document, "CreateBucketConfiguration")
    for child in root.children:
        if child.name not in ("LocationConstraint", "Tags"):
            raise S3Error("NotImplemented", f"CreateBucketConfiguration with {child.name[:64]} is not implemented")
        if child.name == "Tags" and child.children:
            raise S3Error("NotImplemented", "CreateBucketConfiguration with Tags is not implemented")
    constraint = (root.child_text("LocationConstraint") or "").strip()
    if constraint and _REGION_ALIASES.get(constraint, constraint) != region:
        raise S3Error(
            "IllegalLocationConstraintException",
            f"The {constraint} location constraint is incompatible for the region specific endpoint this request was"
            " sent to.",
        )
