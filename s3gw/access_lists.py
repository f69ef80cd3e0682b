"""The ACLs that requests ask for, with their grantees looked up and checked against what the bucket allows."""

from __future__ import annotations

from cluster.directory import Directory
from s3gw.protocol.acl import Acl, Grantee, Wish, find_group, parse_wish, plan_canned, simplify
from s3gw.protocol.authorize import find_bucket_rules
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import OWNERSHIP_SETTING, check_acl_supported, plan_owner
from s3gw.protocol.permissions import names_grants
from s3gw.protocol.policy_status import is_acl_public
from storage.model import Bucket, Grant


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


def check_acl(bucket: Bucket, acl: Acl | None, canned: str = "") -> None:
    """AccessControlListNotSupported, or AccessDenied for a public one where those are blocked."""
    rules = find_bucket_rules(bucket.settings)
    check_acl_supported(rules.ownership, bucket.owner_id, acl, canned)
    if acl is not None and rules.block.block_public_acls and is_acl_public(acl):
        raise S3Error("AccessDenied")


async def plan_object_access(
    directory: Directory, bucket: Bucket, writer_id: str, headers: dict[str, str]
) -> tuple[str, Acl | None]:
    """(owner, ACL) of an object that a request with these headers writes."""
    acl = None
    if names_grants(headers):
        wish = parse_wish(headers)
        acl = await resolve_wish(directory, wish, writer_id, bucket.owner_id)
        check_acl(bucket, acl, wish.canned)
    elif OWNERSHIP_SETTING not in bucket.settings:
        return writer_id, None
    return plan_owner(find_bucket_rules(bucket.settings).ownership, writer_id, bucket.owner_id, acl)
