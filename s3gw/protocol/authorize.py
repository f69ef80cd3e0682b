"""PURE. Who may do what. For now: a bucket's owner and the root user everything, everybody else nothing.

One function, so that bucket policies and ACLs have one place to go.
"""

from __future__ import annotations

from s3gw.protocol.errors import S3Error
from s3gw.protocol.principals import is_anonymous
from storage.model import Bucket, User

ANYONE_SIGNED = frozenset({"s3:ListAllMyBuckets", "s3:CreateBucket"})
"""what every user may do: it touches no bucket of anybody else"""


def authorize(
    caller: User, permission: str, bucket: Bucket | None, object_key: bytes, expected_owner: str = ""
) -> None:
    """AccessDenied unless the caller has the permission on the bucket or object.

    expected_owner: x-amz-expected-bucket-owner; a request that expects another owner is denied whoever asks.
    """
    if is_anonymous(caller):
        raise S3Error("AccessDenied")
    if bucket is None:
        if permission not in ANYONE_SIGNED:
            raise S3Error("AccessDenied")
        return
    if caller.canonical_id != bucket.owner_id and not caller.is_root:
        raise S3Error("AccessDenied")
    if expected_owner and expected_owner != bucket.owner_id:
        raise S3Error("AccessDenied")
