"""PURE. A bucket's default encryption. Source: Amazon S3 API Reference, PutBucketEncryption and GetBucketEncryption."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, element, parse_xml

SETTING = "encryption"
"""the bucket setting that holds the document as GetBucketEncryption gives it"""
STORED_REMEMBERED_MAX = 1_024

_ROOT = "ServerSideEncryptionConfiguration"
_KEY_NAME = re.compile(r"[\x21-\x7e]{1,2048}\Z")
_KMS = ("aws:kms", "aws:kms:dsse")
_BLOCKABLE = ("SSE-C", "NONE")


class BucketEncryption(NamedTuple):
    """What holds for objects that are put without a word of encryption."""

    mode: str = "AES256"
    """`AES256`, `aws:kms` or `aws:kms:dsse`"""
    key_name: str = ""
    """of a KMS mode, as it was given; `` the bucket's own key"""
    bucket_key_enabled: bool = False
    blocked: str = ""
    """`SSE-C` when customers' keys are refused, `NONE` when nothing is and that was said"""

    @property
    def blocks_customer_keys(self) -> bool:
        """Whether objects sealed with a customer's key are refused."""
        return self.blocked == "SSE-C"


def parse_bucket_encryption(body: bytes) -> BucketEncryption:
    """MalformedXML, InvalidArgument. As on AWS, whether a named key exists is asked when an object is put."""
    root = parse_xml(body, _ROOT)
    rules = list(root.all("Rule"))
    if len(rules) != 1:
        raise S3Error("MalformedXML")
    rule = rules[0]
    blocked = _parse_blocked(rule.child("BlockedEncryptionTypes"))
    bucket_key_enabled = _parse_flag(rule.child_text("BucketKeyEnabled"))
    by_default = rule.child("ApplyServerSideEncryptionByDefault")
    if by_default is None:
        if not blocked and rule.child("BucketKeyEnabled") is None:
            raise S3Error("MalformedXML")
        return BucketEncryption(bucket_key_enabled=bucket_key_enabled, blocked=blocked)
    mode = (by_default.child_text("SSEAlgorithm") or "").strip()
    key_name = (by_default.child_text("KMSMasterKeyID") or "").strip()
    if mode != "AES256" and mode not in _KMS:
        raise S3Error("MalformedXML")
    if key_name and mode not in _KMS:
        raise S3Error(
            "InvalidArgument",
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
            ArgumentName="KMSMasterKeyID",
        )
    if key_name and not _KEY_NAME.match(key_name):
        raise S3Error("InvalidArgument", "Invalid KMS key id", ArgumentName="KMSMasterKeyID")
    return BucketEncryption(mode, key_name, bucket_key_enabled, blocked)


@lru_cache(STORED_REMEMBERED_MAX)
def parse_stored_encryption(stored: bytes | None) -> BucketEncryption:
    """The same of a setting that was checked when it was put; None: there is none."""
    return BucketEncryption() if stored is None else parse_bucket_encryption(stored)


def format_bucket_encryption(encryption: BucketEncryption) -> bytes:
    """What GetBucketEncryption gives; of a bucket without a word of it, too: AES256 holds for everything."""
    key = element("KMSMasterKeyID", encryption.key_name or None)
    blocked = f"<BlockedEncryptionTypes>{element('EncryptionType', encryption.blocked)}</BlockedEncryptionTypes>"
    return document(
        _ROOT,
        "<Rule><ApplyServerSideEncryptionByDefault>"
        f"{element('SSEAlgorithm', encryption.mode)}{key}</ApplyServerSideEncryptionByDefault>"
        f"<BucketKeyEnabled>{'true' if encryption.bucket_key_enabled else 'false'}</BucketKeyEnabled>"
        f"{blocked if encryption.blocked else ''}</Rule>",
    )


def _parse_flag(text: str | None) -> bool:
    flag = (text or "false").strip().lower()
    if flag not in ("true", "false"):
        raise S3Error("MalformedXML")
    return flag == "true"


def _parse_blocked(blocked: Element | None) -> str:
    if blocked is None:
        return ""
    kinds = [kind.text.strip() for kind in blocked.all("EncryptionType")]
    if len(kinds) != 1 or kinds[0] not in _BLOCKABLE:
        raise S3Error("MalformedXML")
    return kinds[0]
