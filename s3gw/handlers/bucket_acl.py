"""GetBucketAcl and PutBucketAcl. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.acl_request import read_acl
from s3gw.bucket_setting import store_setting
from s3gw.call import Call, Response
from s3gw.protocol.acl import encode_acl, expand, simplify
from s3gw.protocol.acl_document import format_access_control_policy
from s3gw.protocol.authorize import ACL_SETTING, find_bucket_rules
from s3gw.protocol.ownership import Ownership
from s3gw.respond import XML_TYPE


async def get_bucket_acl(call: Call) -> Response:
    """Where ACLs do not count, what holds instead."""
    bucket = call.bucket
    rules = find_bucket_rules(bucket.settings)
    acl = expand(None if rules.ownership is Ownership.BUCKET_OWNER_ENFORCED else rules.acl, bucket.owner_id)
    names = await call.find_owner_names({bucket.owner_id} | {grant.grantee for grant in acl})
    return Response(200, [XML_TYPE], format_access_control_policy(bucket.owner_id, acl, names))


async def put_bucket_acl(call: Call) -> Response:
    """Replace it."""
    bucket = call.bucket
    acl = simplify(await read_acl(call, bucket.owner_id, None), bucket.owner_id)
    await store_setting(call, ACL_SETTING, None if acl is None else encode_acl(acl))
    return Response(200)
