"""The one table from the errors of storage and cluster to those of S3."""

from __future__ import annotations

from s3gw.protocol.errors import S3Error
from storage.base.errors import (
    ChunkError,
    Corrupt,
    CustomerKeyMismatch,
    CustomerKeyMissing,
    CustomerKeyNotApplicable,
    FrostbyteError,
    NotEnoughNodes,
    Refused,
    Unavailable,
    UnknownKeyId,
)
from storage.crypto.keys import NAMED_PREFIX

REFUSAL_CODES = {
    "NoSuchBucket": "NoSuchBucket",
    "BucketAlreadyExists": "BucketAlreadyExists",
    "BucketNotEmpty": "BucketNotEmpty",
    "NoSuchKey": "NoSuchKey",
    "NoSuchVersion": "NoSuchVersion",
    "NoSuchUpload": "NoSuchUpload",
    "InvalidPart": "InvalidPart",
    "InvalidPartOrder": "InvalidPartOrder",
    "EntityTooSmall": "EntityTooSmall",
    "PreconditionFailed": "PreconditionFailed",
    "ConditionalConflict": "ConditionalRequestConflict",
    "SourceChanged": "OperationAborted",
    "SessionFenced": "ServiceUnavailable",
    "StalePlacement": "ServiceUnavailable",
    "NoSuchUser": "InvalidAccessKeyId",
    "UserAlreadyExists": "InternalError",
    "ObjectLocked": "AccessDenied",
    "InvalidBucketState": "InvalidBucketState",
    "NotActiveMaster": "ServiceUnavailable",
    "LimitExceeded": "InvalidRequest",
}
"""name of a Refused class → S3 code"""

REFUSAL_MESSAGES = {"ObjectLocked": "Access Denied because object protected by object lock."}
"""name of a Refused class → what is said in place of the code's usual sentence"""

KEYRINGS_DIFFER = (
    "This gateway's keyring does not hold the key that the bucket is sealed with. All gateways of a cluster use one"
    " keyring."
)
"""a gateway on another host, whose directory is not the shared one; nothing was read or written"""

_CUSTOMER_KEYS: dict[type[FrostbyteError], str] = {
    CustomerKeyMissing: "The object was stored using a form of Server Side Encryption. The correct parameters must be"
    " provided to retrieve the object.",
    CustomerKeyNotApplicable: "The encryption parameters are not applicable to this object.",
    CustomerKeyMismatch: "The provided encryption parameters did not match the ones used originally.",
}
"""InvalidRequest, in these words. (Of a GET with another key, AWS is said to answer 403; ceph/s3-tests wants 400.)"""

_FAILURES: tuple[tuple[type[FrostbyteError], str], ...] = (
    (Corrupt, "InternalError"),
    (NotEnoughNodes, "ServiceUnavailable"),
    (ChunkError, "ServiceUnavailable"),
    (Unavailable, "SlowDown"),
)
"""the first class that fits"""

_EXTRA = {"part_number": "PartNumber", "size": "ProposedSize", "condition": "Condition"}


def translate(error: FrostbyteError, bucket: str, object_key: bytes, upload_id: str, version_id: str) -> S3Error:
    """What S3 says for it, with the names that AWS adds."""
    if type(error) in _CUSTOMER_KEYS:
        return S3Error("InvalidRequest", _CUSTOMER_KEYS[type(error)])
    if isinstance(error, UnknownKeyId) and error.details.get("key_id", "").startswith(NAMED_PREFIX):
        name = error.details["key_id"].removeprefix(NAMED_PREFIX)
        return S3Error("KMS.NotFoundException", f"Key '{name}' does not exist")
    if isinstance(error, UnknownKeyId):
        return S3Error("InternalError", KEYRINGS_DIFFER)
    if not isinstance(error, Refused):
        return S3Error(next((code for kind, code in _FAILURES if isinstance(error, kind)), "InternalError"))
    code = REFUSAL_CODES.get(type(error).__name__, "InternalError")
    extra = {_EXTRA[name]: text for name, text in error.details.items() if name in _EXTRA}
    if code in ("NoSuchBucket", "BucketNotEmpty"):
        extra["BucketName"] = bucket
    elif code in ("NoSuchKey", "NoSuchVersion"):
        extra["Key"] = object_key.decode("utf-8", "replace")
        if code == "NoSuchVersion":
            extra["VersionId"] = version_id
    elif code == "NoSuchUpload":
        extra["UploadId"] = upload_id
    message = str(error) if code == "InvalidRequest" else REFUSAL_MESSAGES.get(type(error).__name__)
    translated = S3Error(code, message, **extra)
    if code == "NoSuchKey":
        marker = error.details.get("delete_marker_version_id")
        headers = {"x-amz-version-id": marker} if marker else {}
        translated.with_headers({"x-amz-delete-marker": "true" if marker else "false"} | headers)
    return translated
