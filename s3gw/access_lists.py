"""The ACLs that requests ask for, with their grantees looked up and checked against what the bucket allows."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.directory import Directory
from s3gw.protocol.acl import Acl, Grantee, Wish, encode_acl, expand, find_group, parse_wish, plan_canned, simplify
from s3gw.protocol.authorize import ACL_SETTING, find_bucket_rules
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import (
    OWNERSHIP_SETTING,
    Ownership,
    check_acl_supported,
    format_ownership_controls,
    parse_ownership_header,
)
from s3gw.protocol.permissions import names_grants
from s3gw.protocol.policy_status import is_acl_public
from s3gw.protocol.public_access_block import ALL_BLOCKED, PUBLIC_ACCESS_SETTING, format_public_access_block
from storage.model import Bucket, Grant

ACL_DEFAULTS = "acl"
AWS_DEFAULTS = "aws"
_OWNERSHIP_DEFAULTS = {ACL_DEFAULTS: None, AWS_DEFAULTS: Ownership.BUCKET_OWNER_ENFORCED}


async def resolve_wish(directory: Directory, wish: Wish, owner_id: str, bucket_owner_id: str | None) -> Acl | None:
    """The list that a request asks for. bucket_owner_id: None for a bucket's own.

    InvalidArgument for an id or a group that does not exist, UnresolvableGrantByEmailAddress.
    """
    if wish.canned:
        return plan_canned(wish.canned, owner_id, bucket_owner_id)
    if not wish.is_explicit:
        return None
    found: dict[Grantee, str] = {}
    for grantee, _ in wish.grants:
        if grantee not in found:
            found[grantee] = await _find_grantee(directory, grantee)
    return simplify(tuple(Grant(found[grantee], permission) for grantee, permission in wish.grants), owner_id)


async def _find_grantee(directory: Directory, grantee: Grantee) -> str:
    if grantee.kind == "uri":
        return find_group(grantee.text)
    if grantee.kind == "id":
        if await directory.user(grantee.text) is None:
            raise S3Error(
                "InvalidArgument", "Invalid id", ArgumentName="CanonicalUser/ID", ArgumentValue=grantee.text[:256]
            )
        return grantee.text
    user = await directory.user_by_email(grantee.text)
    if user is None:
        raise S3Error("UnresolvableGrantByEmailAddress")
    return user.canonical_id


def check_acl(bucket: Bucket, acl: Acl | None, owner_id: str, canned: str) -> None:
    """AccessControlListNotSupported, or AccessDenied for a public one where those are blocked."""
    rules = find_bucket_rules(bucket.settings)
    check_acl_supported(rules.ownership, bucket.owner_id, expand(acl, owner_id), canned)
    if acl is not None and rules.block.block_public_acls and is_acl_public(acl):
        raise S3Error("AccessDenied")


async def plan_object_acl(
    directory: Directory, bucket: Bucket, writer_id: str, headers: Mapping[str, str]
) -> Acl | None:
    """The ACL of an object that a request with these headers writes."""
    if not names_grants(headers):
        return None
    wish = parse_wish(headers)
    acl = await resolve_wish(directory, wish, writer_id, bucket.owner_id)
    check_acl(bucket, acl, writer_id, wish.canned)
    return acl


async def plan_bucket_access(
    directory: Directory, owner_id: str, headers: Mapping[str, str], defaults: str
) -> dict[str, bytes]:
    """The settings that a bucket made by a request with these headers begins with.

    defaults: `acl` or `aws` (Settings.bucket_defaults). InvalidBucketAclWithObjectOwnership where ACLs would not count,
    AccessDenied for a public one where those are blocked from the start.
    """
    acl = await resolve_wish(directory, parse_wish(headers), owner_id, None) if names_grants(headers) else None
    settings = {}
    named = headers.get("x-amz-object-ownership")
    ownership = parse_ownership_header(named) if named else _OWNERSHIP_DEFAULTS[defaults]
    if ownership is not None:
        settings[OWNERSHIP_SETTING] = format_ownership_controls(ownership)
    if acl is not None:
        if ownership is Ownership.BUCKET_OWNER_ENFORCED:
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        if defaults == AWS_DEFAULTS and is_acl_public(acl):
            raise S3Error("AccessDenied")
        settings[ACL_SETTING] = encode_acl(acl)
    if defaults == AWS_DEFAULTS:
        settings[PUBLIC_ACCESS_SETTING] = format_public_access_block(ALL_BLOCKED)
    return settings
