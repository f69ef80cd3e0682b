"""The whole error tree of storage and cluster, as a list. PURE.

FrostbyteError
├── Unavailable                    try again later (a dependency is down, a deadline passed): HTTP 503
├── Corrupt                        bytes failed verification
│   └── SealBroken                 an AEAD tag or a MAC does not match
├── ChunkError                     one chunk on one datanode
│   ├── ChunkNotFound
│   ├── ChunkConflict              the id exists with other bytes
│   ├── ChunkTruncated             the body was shorter or longer than announced
│   ├── NodeFull                   below the reserve: HTTP 507
│   └── NodeUnreachable            refused, reset or past its deadline
├── JournalError                   one file of the metadata's journal on one datanode
│   ├── JournalFileNotFound
│   ├── JournalConflict            it is not as long as its writer thinks, or is there with other bytes
│   └── JournalFenced              a later owner of the metadata was there
├── NotEnoughNodes                 fewer eligible nodes than the redundancy needs
├── UnknownKeyId                   a wrap names a key that the keyring does not have
├── CustomerKeyRefused             what is sealed with a customer's key wants that key, what is not wants none
│   ├── CustomerKeyMissing
│   ├── CustomerKeyNotApplicable
│   └── CustomerKeyMismatch
└── Refused                        metadata said no; nothing was changed
    ├── NoSuchBucket  BucketAlreadyExists  BucketNotEmpty
    ├── NoSuchKey  NoSuchVersion  NoSuchUpload
    ├── InvalidPart  InvalidPartOrder  EntityTooSmall
    ├── PreconditionFailed  ConditionalConflict
    ├── SourceChanged              a copy's source blobs are gone: read the source again
    ├── SessionFenced              this worker's write session is no longer open
    ├── StalePlacement             chunks were placed on a node that is being retired: write them again
    ├── NotActiveMaster            another master holds the lease: this one's term is over
    ├── NoSuchUser  UserAlreadyExists
    ├── ObjectLocked               a retention or a legal hold forbids it
    ├── InvalidBucketState         the bucket's versioning or object lock forbids this setting
    └── LimitExceeded              a bound that is stated in the message

Refused errors cross the metadata socket by name with a text and a small dict of details (str → str).
"""

from __future__ import annotations


class FrostbyteError(Exception):
    """The root. `details` are short facts for the log and for the S3 error body, never secrets."""

    def __init__(self, message: str = "", **details: str) -> None:
        super().__init__(message or type(self).__name__)
        self.details = details


class Unavailable(FrostbyteError):
    """A dependency does not answer; the same request may succeed later."""


class Corrupt(FrostbyteError):
    """Stored bytes are not what was stored."""


class SealBroken(Corrupt):
    """An authentication tag or MAC does not match."""


class ChunkError(FrostbyteError):
    """Something about one chunk on one datanode."""


class ChunkNotFound(ChunkError):
    """The datanode does not hold this chunk."""


class ChunkConflict(ChunkError):
    """The chunk id exists with other bytes."""


class ChunkTruncated(ChunkError):
    """The body's length is not the announced one."""


class NodeFull(ChunkError):
    """The datanode's free space is below its reserve."""


class NodeUnreachable(ChunkError):
    """The datanode refused, reset or missed its deadline."""


class JournalError(FrostbyteError):
    """Something about one file of the metadata's journal on one datanode."""


class JournalFileNotFound(JournalError):
    """The datanode does not hold this file."""


class JournalConflict(JournalError):
    """The file is not as long as its writer thinks, or is there with other bytes."""


class JournalFenced(JournalError):
    """A later owner of the metadata was at this datanode: the one that asks is over."""


class NotEnoughNodes(FrostbyteError):
    """Fewer eligible nodes than the redundancy needs."""


class UnknownKeyId(FrostbyteError):
    """The keyring holds no key of this id (and version)."""


class CustomerKeyRefused(FrostbyteError):
    """The customer's key of a request does not fit what it asks for."""


class CustomerKeyMissing(CustomerKeyRefused):
    """Sealed with a customer's key, and none was brought."""


class CustomerKeyNotApplicable(CustomerKeyRefused):
    """Not sealed with a customer's key, and one was brought."""


class CustomerKeyMismatch(CustomerKeyRefused):
    """Sealed with another customer's key."""


class Refused(FrostbyteError):
    """The metadata answered no; nothing was changed."""


class NoSuchBucket(Refused):
    """No bucket of this name or id."""


class BucketAlreadyExists(Refused):
    """details: owner_id."""


class BucketNotEmpty(Refused):
    """The bucket still has versions or markers."""


class NoSuchKey(Refused):
    """No current version under this key. details: delete_marker_version_id when a marker is current."""


class NoSuchVersion(Refused):
    """No version of this id under this key."""


class NoSuchUpload(Refused):
    """No multipart upload of this id for this key, or it was completed or aborted."""


class InvalidPart(Refused):
    """A part of the list does not exist or its ETag or checksum differs. details: part_number."""


class InvalidPartOrder(Refused):
    """The part list is not in ascending order."""


class EntityTooSmall(Refused):
    """A part other than the last has fewer than 5 MiB. details: part_number, size."""


class PreconditionFailed(Refused):
    """details: condition (the header's name)."""


class ConditionalConflict(Refused):
    """Another conditional write to the key won while this one was under way."""


class SourceChanged(Refused):
    """The blobs that a copy wants to share are no longer referenced."""


class SessionFenced(Refused):
    """The write session was closed or fenced; nothing of it can commit any more."""


class StalePlacement(Refused):
    """A chunk names a node that is closed for commits, because it was drained. details: node (its number)."""


class NotActiveMaster(Refused):
    """Another master is the active one. details: active (its address), where it is known."""


class NoSuchUser(Refused):
    """No user of this name or id."""


class UserAlreadyExists(Refused):
    """The name, canonical id or access key id is taken."""


class ObjectLocked(Refused):
    """A retention that has not run out, or a legal hold, forbids the deletion or the change."""


class InvalidBucketState(Refused):
    """Versioning of a bucket with object lock stays enabled; object lock needs versioning."""


class LimitExceeded(Refused):
    """A stated bound was exceeded."""


def _tree(root: type[Refused]) -> dict[str, type[Refused]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


REFUSALS: dict[str, type[Refused]] = _tree(Refused)
"""Every refusal by name, for the far side of a socket."""
