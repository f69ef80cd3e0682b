"""The policy of a bucket and whether it is public. Source: Amazon S3 API Reference, Get-, Put- and DeleteBucketPolicy,
GetBucketPolicyStatus."""

from __future__ import annotations

from s3gw.bucket_setting import read_setting, store_setting
from s3gw.call import Call, Response, xml_response
from s3gw.protocol.authorize import POLICY_SETTING, find_bucket_rules
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import Ownership
from s3gw.protocol.policy import Policy, parse_policy
from s3gw.protocol.policy_status import is_acl_public, is_policy_public

_JSON_TYPE = (b"content-type", b"application/json")


async def get_bucket_policy(call: Call) -> Response:
    """The document as it was put."""
    return Response(200, [_JSON_TYPE], read_setting(call, POLICY_SETTING, "NoSuchBucketPolicy"))


async def put_bucket_policy(call: Call) -> Response:
    """204. MalformedPolicy; AccessDenied for a public one where those are blocked."""
    document = await call.read_document()
    policy = parse_policy(document, call.bucket.name)
    await _check_principals(call, policy)
    if find_bucket_rules(call.bucket.settings).block.block_public_policy and is_policy_public(policy):
        raise S3Error("AccessDenied")
    await store_setting(call, POLICY_SETTING, document)
    return Response(204)


async def delete_bucket_policy(call: Call) -> Response:
    """204, also where there is none."""
    await store_setting(call, POLICY_SETTING, None)
    return Response(204)


async def get_bucket_policy_status(call: Call) -> Response:
    """Whether its policy or its ACL makes the bucket public; of a bucket without either: no."""
    rules = find_bucket_rules(call.bucket.settings)
    acl_counts = rules.ownership is not Ownership.BUCKET_OWNER_ENFORCED and not rules.block.ignore_public_acls
    public = rules.policy is not None and is_policy_public(rules.policy)
    public = public or (acl_counts and rules.acl is not None and is_acl_public(rules.acl))
    return xml_response("PolicyStatus", f"<IsPublic>{'true' if public else 'false'}</IsPublic>")


async def _check_principals(call: Call, policy: Policy) -> None:
    """A name that is nobody's is a typing mistake, and would be somebody's once a user is given it. MalformedPolicy.

    Account roots and canonical ids are not looked up: they may stand for accounts elsewhere, and are nobody's here.
    """
    names = {name for statement in policy.statements for name in statement.principals.names}
    for name in sorted(names):
        if await call.services.directory.user_by_name(name) is None:
            raise S3Error("MalformedPolicy", "Invalid principal in policy")
