"""PURE. The permissions of S3 by name, and which of them a request needs.

Source: Service Authorization Reference, "Actions, resources, and condition keys for Amazon S3"; Amazon S3 User Guide,
"Required permissions for Amazon S3 API operations".
"""

from __future__ import annotations

from collections.abc import Mapping

VERSIONED = {
    f"s3:{verb}Object{rest}": f"s3:{verb}ObjectVersion{rest}"
    for verb, rest in (
        ("Get", ""),
        ("Get", "Acl"),
        ("Get", "Attributes"),
        ("Get", "Tagging"),
        ("Get", "Torrent"),
        ("Put", "Acl"),
        ("Put", "Tagging"),
        ("Delete", ""),
        ("Delete", "Tagging"),
    )
}
"""what a request that names a version needs in place of the plain permission"""

_OBJECT_WORDS = (
    "AbortMultipartUpload BypassGovernanceRetention DeleteObject DeleteObjectTagging DeleteObjectVersion"
    " DeleteObjectVersionTagging GetObject GetObjectAcl GetObjectAttributes GetObjectLegalHold GetObjectRetention"
    " GetObjectTagging GetObjectTorrent GetObjectVersion GetObjectVersionAcl GetObjectVersionAttributes"
    " GetObjectVersionForReplication GetObjectVersionTagging GetObjectVersionTorrent InitiateReplication"
    " ListMultipartUploadParts ObjectOwnerOverrideToBucketOwner PutObject PutObjectAcl PutObjectLegalHold"
    " PutObjectRetention PutObjectTagging PutObjectVersionAcl PutObjectVersionTagging ReplicateDelete ReplicateObject"
    " ReplicateTags RestoreObject UpdateObjectEncryption"
)
_BUCKET_WORDS = (
    "CreateBucket CreateBucketMetadataTableConfiguration DeleteBucket DeleteBucketMetadataTableConfiguration"
    " DeleteBucketOwnershipControls DeleteBucketPolicy DeleteBucketPublicAccessBlock DeleteBucketWebsite"
    " GetAccelerateConfiguration GetAnalyticsConfiguration"
    " GetBucketAbac GetBucketAcl GetBucketCORS GetBucketLocation GetBucketLogging GetBucketMetadataTableConfiguration"
    " GetBucketNotification GetBucketObjectLockConfiguration GetBucketOwnershipControls GetBucketPolicy"
    " GetBucketPolicyStatus GetBucketPublicAccessBlock GetBucketRequestPayment GetBucketTagging GetBucketVersioning"
    " GetBucketWebsite GetEncryptionConfiguration GetIntelligentTieringConfiguration GetInventoryConfiguration"
    " GetLifecycleConfiguration GetMetricsConfiguration GetReplicationConfiguration ListBucket"
    " ListBucketMultipartUploads ListBucketVersions ListTagsForResource PostBucketLogging PutAccelerateConfiguration"
    " PutAnalyticsConfiguration PutBucketAbac PutBucketAcl PutBucketCORS PutBucketLogging PutBucketNotification"
    " PutBucketObjectLockConfiguration PutBucketOwnershipControls PutBucketPolicy PutBucketPublicAccessBlock"
    " PutBucketRequestPayment PutBucketTagging PutBucketVersioning PutBucketWebsite PutEncryptionConfiguration"
    " PutIntelligentTieringConfiguration PutInventoryConfiguration PutLifecycleConfiguration PutMetricsConfiguration"
    " PutReplicationConfiguration TagResource UntagResource UpdateBucketMetadataInventoryTableConfiguration"
    " UpdateBucketMetadataJournalTableConfiguration"
)
_ACCOUNT_WORDS = "GetAccountPublicAccessBlock ListAllMyBuckets PutAccountPublicAccessBlock"


def _names(words: str) -> frozenset[str]:
    return frozenset(f"s3:{word}" for word in words.split())


OBJECT_PERMISSIONS = _names(_OBJECT_WORDS)
PERMISSIONS = OBJECT_PERMISSIONS | _names(_BUCKET_WORDS) | _names(_ACCOUNT_WORDS)
"""what a policy may name; anything else in one is a typing mistake, and refused"""

_PERMISSIONS_LOWER = frozenset(name.lower() for name in PERMISSIONS)

OWNERS_ALWAYS = frozenset({"s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"})
"""no policy takes them from the bucket's owner, so that none can lock everybody out"""

BUCKET_ACL = {
    "s3:ListBucket": "READ",
    "s3:ListBucketVersions": "READ",
    "s3:ListBucketMultipartUploads": "READ",
    "s3:PutObject": "WRITE",
    "s3:DeleteObject": "WRITE",
    "s3:GetBucketAcl": "READ_ACP",
    "s3:PutBucketAcl": "WRITE_ACP",
}
"""the permission of S3 → the one of a bucket's ACL that gives it"""

OBJECT_ACL = {
    "s3:GetObject": "READ",
    "s3:GetObjectVersion": "READ",
    "s3:GetObjectTorrent": "READ",
    "s3:GetObjectVersionTorrent": "READ",
    "s3:GetObjectAcl": "READ_ACP",
    "s3:GetObjectVersionAcl": "READ_ACP",
    "s3:PutObjectAcl": "WRITE_ACP",
    "s3:PutObjectVersionAcl": "WRITE_ACP",
}
"""the same of an object's ACL, which decides it for the bucket's owner too where somebody else owns the object"""

TAG_CONDITIONED = OBJECT_PERMISSIONS - _names(
    "PutObject AbortMultipartUpload ListMultipartUploadParts ReplicateObject ReplicateDelete InitiateReplication"
)
"""those on an object that is there, whose tags `s3:ExistingObjectTag` may ask for"""

_GRANT_HEADERS = frozenset(
    {
        "x-amz-acl",
        "x-amz-grant-full-control",
        "x-amz-grant-read",
        "x-amz-grant-read-acp",
        "x-amz-grant-write",
        "x-amz-grant-write-acp",
    }
)
_HEADER_PERMISSIONS: tuple[tuple[str, str], ...] = (
    ("x-amz-tagging", "s3:PutObjectTagging"),
    ("x-amz-object-lock-mode", "s3:PutObjectRetention"),
    ("x-amz-object-lock-retain-until-date", "s3:PutObjectRetention"),
    ("x-amz-object-lock-legal-hold", "s3:PutObjectLegalHold"),
)


def is_known(action: str) -> bool:
    """Whether S3 has a permission of this name, in any case of letters."""
    return action.lower() in _PERMISSIONS_LOWER


def choose_permission(permission: str, version_id: str | None) -> str:
    """The permission that the plain one becomes where a version is named."""
    return permission if version_id is None else VERSIONED.get(permission, permission)


def plan_permissions(permission: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """What a request that writes an object needs beside its own permission, by its headers."""
    if permission == "s3:GetObjectAttributes":
        return ("s3:GetObject",)
    if permission == "s3:GetObjectVersionAttributes":
        return ("s3:GetObjectVersion",)
    if permission != "s3:PutObject":
        return ()
    return tuple(dict.fromkeys(needed for name, needed in _HEADER_PERMISSIONS if headers.get(name)))


def names_grants(headers: Mapping[str, str]) -> bool:
    """Whether a request says who may access what it writes.

    The writer owns the object, and an owner may write his object's ACL: `s3:PutObjectAcl` is not needed for it, but an
    explicit Deny of it is heeded.
    """
    return not _GRANT_HEADERS.isdisjoint(headers) and any(map(headers.get, _GRANT_HEADERS))
