"""PURE. The closed list of sub-resources: a query parameter named here selects another operation than the plain one.

Each row gives, for each method AWS offers, the operation and the permission it needs. A method that a row does not
name is 405, and a row of the other table is 405 too: nothing here is taken for a plain bucket or object request.
Whatever is not on the list (`x-id`, a cache buster) is ignored. Source: Amazon S3 API Reference, "Actions".
"""

from __future__ import annotations

from typing import NamedTuple

from s3gw.protocol.operations import Operation


class Rule(NamedTuple):
    """What a method on a sub-resource is, and the permission it needs."""

    operation: Operation
    permission: str


Methods = dict[str, Rule]

METHOD_NOT_ALLOWED = Rule(Operation.METHOD_NOT_ALLOWED, "")


def _bucket_setting(read: str, write: str, writes: tuple[str, ...] = ("PUT", "DELETE")) -> Methods:
    """A bucket's document that can be read, and not yet written."""
    refused = Rule(Operation.NOT_IMPLEMENTED, write)
    return {"GET": Rule(Operation.GET_BUCKET_SETTING, read)} | dict.fromkeys(writes, refused)


def _absent_setting(read: str, write: str) -> Methods:
    """A bucket's document that nobody can put here: deleting it finds nothing to delete."""
    return _bucket_setting(read, write, ("PUT",)) | {"DELETE": Rule(Operation.DELETE_BUCKET_SETTING, write)}


def _refused(permission: str, *methods: str) -> Methods:
    return dict.fromkeys(methods, Rule(Operation.NOT_IMPLEMENTED, permission))


_PUT_ONLY = ("PUT",)

BUCKET_SUBRESOURCES: dict[str, Methods] = {
    "delete": {"POST": Rule(Operation.DELETE_OBJECTS, "s3:DeleteObject")},
    "uploads": {"GET": Rule(Operation.LIST_MULTIPART_UPLOADS, "s3:ListBucketMultipartUploads")},
    "location": {"GET": Rule(Operation.GET_BUCKET_SETTING, "s3:GetBucketLocation")},
    "versioning": {
        "GET": Rule(Operation.GET_BUCKET_VERSIONING, "s3:GetBucketVersioning"),
        "PUT": Rule(Operation.PUT_BUCKET_VERSIONING, "s3:PutBucketVersioning"),
    },
    "versions": {"GET": Rule(Operation.LIST_OBJECT_VERSIONS, "s3:ListBucketVersions")},
    "acl": {
        "GET": Rule(Operation.GET_BUCKET_ACL, "s3:GetBucketAcl"),
        "PUT": Rule(Operation.PUT_BUCKET_ACL, "s3:PutBucketAcl"),
    },
    "policy": {
        "GET": Rule(Operation.GET_BUCKET_POLICY, "s3:GetBucketPolicy"),
        "PUT": Rule(Operation.PUT_BUCKET_POLICY, "s3:PutBucketPolicy"),
        "DELETE": Rule(Operation.DELETE_BUCKET_POLICY, "s3:DeleteBucketPolicy"),
    },
    "policyStatus": {"GET": Rule(Operation.GET_BUCKET_POLICY_STATUS, "s3:GetBucketPolicyStatus")},
    "tagging": {
        "GET": Rule(Operation.GET_BUCKET_TAGGING, "s3:GetBucketTagging"),
        "PUT": Rule(Operation.PUT_BUCKET_TAGGING, "s3:PutBucketTagging"),
        "DELETE": Rule(Operation.DELETE_BUCKET_TAGGING, "s3:PutBucketTagging"),
    },
    "cors": {
        "GET": Rule(Operation.GET_BUCKET_CORS, "s3:GetBucketCORS"),
        "PUT": Rule(Operation.PUT_BUCKET_CORS, "s3:PutBucketCORS"),
        "DELETE": Rule(Operation.DELETE_BUCKET_CORS, "s3:PutBucketCORS"),
    },
    "lifecycle": {
        "GET": Rule(Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION, "s3:GetLifecycleConfiguration"),
        "PUT": Rule(Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION, "s3:PutLifecycleConfiguration"),
        "DELETE": Rule(Operation.DELETE_BUCKET_LIFECYCLE, "s3:PutLifecycleConfiguration"),
    },
    "website": _absent_setting("s3:GetBucketWebsite", "s3:PutBucketWebsite"),
    "encryption": {
        "GET": Rule(Operation.GET_BUCKET_ENCRYPTION, "s3:GetEncryptionConfiguration"),
        "PUT": Rule(Operation.PUT_BUCKET_ENCRYPTION, "s3:PutEncryptionConfiguration"),
        "DELETE": Rule(Operation.DELETE_BUCKET_ENCRYPTION, "s3:PutEncryptionConfiguration"),
    },
    "publicAccessBlock": {
        "GET": Rule(Operation.GET_PUBLIC_ACCESS_BLOCK, "s3:GetBucketPublicAccessBlock"),
        "PUT": Rule(Operation.PUT_PUBLIC_ACCESS_BLOCK, "s3:PutBucketPublicAccessBlock"),
        "DELETE": Rule(Operation.DELETE_PUBLIC_ACCESS_BLOCK, "s3:PutBucketPublicAccessBlock"),
    },
    "ownershipControls": {
        "GET": Rule(Operation.GET_BUCKET_OWNERSHIP_CONTROLS, "s3:GetBucketOwnershipControls"),
        "PUT": Rule(Operation.PUT_BUCKET_OWNERSHIP_CONTROLS, "s3:PutBucketOwnershipControls"),
        "DELETE": Rule(Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS, "s3:PutBucketOwnershipControls"),
    },
    "object-lock": {
        "GET": Rule(Operation.GET_OBJECT_LOCK_CONFIGURATION, "s3:GetBucketObjectLockConfiguration"),
        "PUT": Rule(Operation.PUT_OBJECT_LOCK_CONFIGURATION, "s3:PutBucketObjectLockConfiguration"),
    },
    "replication": _absent_setting("s3:GetReplicationConfiguration", "s3:PutReplicationConfiguration"),
    "requestPayment": {
        "GET": Rule(Operation.GET_BUCKET_REQUEST_PAYMENT, "s3:GetBucketRequestPayment"),
        "PUT": Rule(Operation.PUT_BUCKET_REQUEST_PAYMENT, "s3:PutBucketRequestPayment"),
    },
    "logging": _bucket_setting("s3:GetBucketLogging", "s3:PutBucketLogging", _PUT_ONLY),
    "notification": _bucket_setting("s3:GetBucketNotification", "s3:PutBucketNotification", _PUT_ONLY),
    "accelerate": {
        "GET": Rule(Operation.GET_BUCKET_ACCELERATE_CONFIGURATION, "s3:GetAccelerateConfiguration"),
        "PUT": Rule(Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION, "s3:PutAccelerateConfiguration"),
    },
    "analytics": _absent_setting("s3:GetAnalyticsConfiguration", "s3:PutAnalyticsConfiguration"),
    "inventory": _absent_setting("s3:GetInventoryConfiguration", "s3:PutInventoryConfiguration"),
    "metrics": _absent_setting("s3:GetMetricsConfiguration", "s3:PutMetricsConfiguration"),
    "intelligent-tiering": _absent_setting(
        "s3:GetIntelligentTieringConfiguration", "s3:PutIntelligentTieringConfiguration"
    ),
    "abac": _bucket_setting("s3:GetBucketAbac", "s3:PutBucketAbac", _PUT_ONLY),
    "metadataConfiguration": _refused("s3:GetBucketMetadataTableConfiguration", "GET", "POST", "DELETE"),
    "metadataTable": _refused("s3:GetBucketMetadataTableConfiguration", "GET", "POST", "DELETE"),
    "metadataInventoryTable": _refused("s3:UpdateBucketMetadataInventoryTableConfiguration", "PUT"),
    "metadataJournalTable": _refused("s3:UpdateBucketMetadataJournalTableConfiguration", "PUT"),
    "session": _refused("s3express:CreateSession", "GET"),
}
"""in the order in which they win, should a request name several"""

OBJECT_SUBRESOURCES: dict[str, Methods] = {
    "uploads": {"POST": Rule(Operation.CREATE_MULTIPART_UPLOAD, "s3:PutObject")},
    "uploadId": {
        "GET": Rule(Operation.LIST_PARTS, "s3:ListMultipartUploadParts"),
        "PUT": Rule(Operation.UPLOAD_PART, "s3:PutObject"),
        "POST": Rule(Operation.COMPLETE_MULTIPART_UPLOAD, "s3:PutObject"),
        "DELETE": Rule(Operation.ABORT_MULTIPART_UPLOAD, "s3:AbortMultipartUpload"),
    },
    "acl": {
        "GET": Rule(Operation.GET_OBJECT_ACL, "s3:GetObjectAcl"),
        "PUT": Rule(Operation.PUT_OBJECT_ACL, "s3:PutObjectAcl"),
    },
    "tagging": {
        "GET": Rule(Operation.GET_OBJECT_TAGGING, "s3:GetObjectTagging"),
        "PUT": Rule(Operation.PUT_OBJECT_TAGGING, "s3:PutObjectTagging"),
        "DELETE": Rule(Operation.DELETE_OBJECT_TAGGING, "s3:DeleteObjectTagging"),
    },
    "retention": {
        "GET": Rule(Operation.GET_OBJECT_RETENTION, "s3:GetObjectRetention"),
        "PUT": Rule(Operation.PUT_OBJECT_RETENTION, "s3:PutObjectRetention"),
    },
    "legal-hold": {
        "GET": Rule(Operation.GET_OBJECT_LEGAL_HOLD, "s3:GetObjectLegalHold"),
        "PUT": Rule(Operation.PUT_OBJECT_LEGAL_HOLD, "s3:PutObjectLegalHold"),
    },
    "attributes": {"GET": Rule(Operation.GET_OBJECT_ATTRIBUTES, "s3:GetObjectAttributes")},
    "torrent": {"GET": Rule(Operation.GET_OBJECT_TORRENT, "s3:GetObjectTorrent")},
    "restore": _refused("s3:RestoreObject", "POST"),
    "select": _refused("s3:GetObject", "POST"),
    "renameObject": _refused("s3:PutObject", "PUT"),
    "encryption": _refused("s3:UpdateObjectEncryption", "PUT"),
}
"""in the order in which they win, should a request name several"""

SUBRESOURCE_NAMES = frozenset(BUCKET_SUBRESOURCES) | frozenset(OBJECT_SUBRESOURCES)


def find_subresource(query: dict[str, str], table: dict[str, Methods]) -> str:
    """The sub-resource that a request names, `` for a plain request. One of the other table counts as named too."""
    named = SUBRESOURCE_NAMES.intersection(query)
    if not named:
        return ""
    return next((name for name in table if name in named), min(named))
