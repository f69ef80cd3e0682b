"""Object ownership and the public access block of a bucket.

Source: Amazon S3 API Reference, Get-, Put- and DeleteBucketOwnershipControls, Get-, Put- and DeletePublicAccessBlock.
"""

from __future__ import annotations

from s3gw.bucket_setting import read_setting, store_setting
from s3gw.call import Call, Response
from s3gw.protocol.authorize import find_bucket_rules
from s3gw.protocol.errors import S3Error
from s3gw.protocol.ownership import (
    OWNERSHIP_SETTING,
    Ownership,
    format_ownership_controls,
    parse_ownership_controls,
)
from s3gw.protocol.public_access_block import (
    PUBLIC_ACCESS_SETTING,
    format_public_access_block,
    parse_public_access_block,
)
from s3gw.respond import XML_TYPE


async def get_ownership_controls(call: Call) -> Response:
    """OwnershipControlsNotFoundError where nobody set them."""
    return Response(200, [XML_TYPE], read_setting(call, OWNERSHIP_SETTING, "OwnershipControlsNotFoundError"))


async def put_ownership_controls(call: Call) -> Response:
    """InvalidBucketAclWithObjectOwnership where ACLs would stop to count that give somebody access."""
    ownership = parse_ownership_controls(await call.read_document())
    enforced = ownership is Ownership.BUCKET_OWNER_ENFORCED
    if enforced and find_bucket_rules(call.bucket.settings).acl is not None:
        raise S3Error("InvalidBucketAclWithObjectOwnership")
    await store_setting(call, OWNERSHIP_SETTING, format_ownership_controls(ownership))
    return Response(200)


async def delete_ownership_controls(call: Call) -> Response:
    """204, also where there are none."""
    await store_setting(call, OWNERSHIP_SETTING, None)
    return Response(204)


async def get_public_access_block(call: Call) -> Response:
    """NoSuchPublicAccessBlockConfiguration where nobody set it."""
    stored = read_setting(call, PUBLIC_ACCESS_SETTING, "NoSuchPublicAccessBlockConfiguration")
    return Response(200, [XML_TYPE], stored)


async def put_public_access_block(call: Call) -> Response:
    """All four switches at once."""
    block = parse_public_access_block(await call.read_document())
    await store_setting(call, PUBLIC_ACCESS_SETTING, format_public_access_block(block))
    return Response(200)


async def delete_public_access_block(call: Call) -> Response:
    """204, also where there is none."""
    await store_setting(call, PUBLIC_ACCESS_SETTING, None)
    return Response(204)
