"""The ACL that a PUT ?acl brings: in headers or as a document. Source: Amazon S3 API Reference, PutObjectAcl."""

from __future__ import annotations

from s3gw.access_lists import check_acl, resolve_wish
from s3gw.call import Call
from s3gw.protocol.acl import Acl, expand, parse_wish
from s3gw.protocol.acl_document import parse_access_control_policy
from s3gw.protocol.errors import S3Error
from s3gw.protocol.permissions import names_grants


async def read_acl(call: Call, owner_id: str, bucket_owner_id: str | None) -> Acl:
    """What the owner's bucket (bucket_owner_id None) or object shall grant.

    MissingSecurityHeader, UnexpectedContent, MalformedACLError, AccessDenied and what access_lists refuses.
    """
    body = await call.read_document()
    if names_grants(call.headers):
        if body.strip():
            raise S3Error("UnexpectedContent")
        wish = parse_wish(call.headers)
    elif not body.strip():
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
    else:
        wish = parse_access_control_policy(body, owner_id)
    acl = await resolve_wish(call.services.directory, wish, owner_id, bucket_owner_id)
    check_acl(call.bucket, acl, owner_id, wish.canned)
    return expand(acl, owner_id)
