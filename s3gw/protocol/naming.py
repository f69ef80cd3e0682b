"""PURE. Which bucket names can be made.

Source: Amazon S3 User Guide, "General purpose bucket naming rules". Object keys and the addressing of both are in
routing.py: an object key is any UTF-8 of 1 to 1,024 bytes.
"""

from __future__ import annotations

import re

from s3gw.protocol.errors import S3Error

_LABELS = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_LIKE_IPV4 = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+")
BUCKET_NAME_LENGTH_MIN = 3
BUCKET_NAME_LENGTH_MAX = 63
RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def check_bucket_name(name: str) -> None:
    """InvalidBucketName unless AWS would make a bucket of this name."""
    if (
        not BUCKET_NAME_LENGTH_MIN <= len(name) <= BUCKET_NAME_LENGTH_MAX
        or not _LABELS.fullmatch(name)
        or _LIKE_IPV4.fullmatch(name)
        or name.startswith(RESERVED_PREFIXES)
        or name.endswith(RESERVED_SUFFIXES)
    ):
        raise S3Error("InvalidBucketName", BucketName=name[:BUCKET_NAME_LENGTH_MAX])
