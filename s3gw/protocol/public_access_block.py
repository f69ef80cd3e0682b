"""PURE. The four locks on public access. Source: Amazon S3 API Reference, PutPublicAccessBlock."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import document, parse_xml

PUBLIC_ACCESS_SETTING = "publicAccessBlock"


class PublicAccessBlock(NamedTuple):
    """In the order in which AWS shows them."""

    block_public_acls: bool = False
    """a request that would make something public by an ACL is refused"""
    ignore_public_acls: bool = False
    """grants to groups count for nothing"""
    block_public_policy: bool = False
    """a public policy is refused"""
    restrict_public_buckets: bool = False
    """a public policy allows nothing to anybody but the bucket's owner"""


NOTHING_BLOCKED = PublicAccessBlock()
ALL_BLOCKED = PublicAccessBlock(True, True, True, True)
_NAMES = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_FLAGS = {"true": True, "false": False, "": False}


def parse_public_access_block(body: bytes) -> PublicAccessBlock:
    """PublicAccessBlockConfiguration; what it leaves out is off. MalformedXML."""
    root = parse_xml(body, "PublicAccessBlockConfiguration")
    if not all(child.name in _NAMES for child in root.children):
        raise S3Error("MalformedXML")
    try:
        return PublicAccessBlock(*(_FLAGS[(root.child_text(name) or "").strip().lower()] for name in _NAMES))
    except KeyError:
        raise S3Error("MalformedXML") from None


def format_public_access_block(block: PublicAccessBlock) -> bytes:
    """The same, as it is kept and given back."""
    flags = "".join(f"<{name}>{'true' if flag else 'false'}</{name}>" for name, flag in zip(_NAMES, block, strict=True))
    return document("PublicAccessBlockConfiguration", flags)


@lru_cache(32)
def find_public_access_block(setting: bytes | None) -> PublicAccessBlock:
    """What a bucket's setting says."""
    return NOTHING_BLOCKED if setting is None else parse_public_access_block(setting)
