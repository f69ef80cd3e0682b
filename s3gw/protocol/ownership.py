"""PURE. Who owns what is written into a bucket, and whether ACLs count in it.

Source: Amazon S3 User Guide, "Controlling ownership of objects and disabling ACLs for your bucket".
"""

from __future__ import annotations

import enum
from functools import lru_cache

from s3gw.protocol.acl import BUCKET_OWNER_FULL_CONTROL, FULL_CONTROL, Acl, plan_canned
from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import document, parse_xml
from storage.model import Grant

OWNERSHIP_SETTING = "ownershipControls"


class Ownership(enum.StrEnum):
    """As spelled in x-amz-object-ownership. A bucket without the setting is OBJECT_WRITER."""

    OBJECT_WRITER = "ObjectWriter"
    BUCKET_OWNER_PREFERRED = "BucketOwnerPreferred"
    BUCKET_OWNER_ENFORCED = "BucketOwnerEnforced"


def parse_ownership_header(text: str) -> Ownership:
    """x-amz-object-ownership. InvalidArgument."""
    try:
        return Ownership(text)
    except ValueError:
        raise S3Error(
            "InvalidArgument",
            f"Invalid x-amz-object-ownership header: {text[:64]}",
            ArgumentName="x-amz-object-ownership",
            ArgumentValue=text[:256],
        ) from None


def parse_ownership_controls(body: bytes) -> Ownership:
    """OwnershipControls with its one rule. MalformedXML."""
    root = parse_xml(body, "OwnershipControls")
    rules = list(root.all("Rule"))
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    try:
        return Ownership((rules[0].child_text("ObjectOwnership") or "").strip())
    except ValueError:
        raise S3Error("MalformedXML") from None


def format_ownership_controls(ownership: Ownership) -> bytes:
    """The same, as it is kept and given back."""
    return document("OwnershipControls", f"<Rule><ObjectOwnership>{ownership}</ObjectOwnership></Rule>")


@lru_cache(16)
def find_ownership(setting: bytes | None) -> Ownership:
    """What a bucket's setting says."""
    return Ownership.OBJECT_WRITER if setting is None else parse_ownership_controls(setting)


def plan_owner(ownership: Ownership, writer_id: str, bucket_owner_id: str, acl: Acl | None) -> tuple[str, Acl | None]:
    """(owner, ACL) of what a writer puts into a bucket with an ACL that it may have."""
    if ownership is Ownership.BUCKET_OWNER_ENFORCED:
        return bucket_owner_id, None
    given = plan_canned(BUCKET_OWNER_FULL_CONTROL, writer_id, bucket_owner_id)
    if ownership is Ownership.BUCKET_OWNER_PREFERRED and acl is not None and acl == given:
        return bucket_owner_id, None
    return writer_id, acl


def check_acl_supported(ownership: Ownership, bucket_owner_id: str, acl: Acl, canned: str) -> None:
    """AccessControlListNotSupported where ACLs do not count and a request sets another than what holds there anyway.

    acl: expanded. Of the canned ones only bucket-owner-full-control passes, not even `private`, as on AWS.
    """
    if ownership is not Ownership.BUCKET_OWNER_ENFORCED or canned == BUCKET_OWNER_FULL_CONTROL:
        return
    if canned or acl != (Grant(bucket_owner_id, FULL_CONTROL),):
        raise S3Error("AccessControlListNotSupported")
