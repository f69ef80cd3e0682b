"""PURE. Every write to the metadata as one typed value, and what it answers.

A command is one transaction: all of it happens or none. It carries everything that decides its outcome except the rows
and the owner's clock, so that a journal of commands, with the times they were applied at, replays to the same state.
Commands are the wire format of the metadata socket (msgpack, tagged by class name); fields are only ever appended.
"""

from __future__ import annotations

from storage.model import (
    AccessKey,
    Attributes,
    Blob,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    Extent,
    Grant,
    LockMode,
    NodeReport,
    NodeState,
    PartInfo,
    Record,
    User,
    Versioning,
)

REDUNDANCY_SETTING = "redundancy"
"""the bucket setting that holds `replica:R` or `ec:k+m` for what is written from now on; absent: the cluster's"""
REWRITE_SETTING = "rewrite"
"""the bucket setting that is `stopped` while what was written before must stay as it is, whatever the redundancy"""
OBJECT_LOCK_SETTING = "object-lock"
"""the bucket setting whose presence says that object lock is enabled; what it says of a default, s3gw knows"""


class Command(Record, frozen=True, tag=True):
    """Base of all writes."""


class Conditions(Record, frozen=True):
    """Of a conditional write, decided inside the transaction. ETags bare; `*` for any. None: not asked."""

    if_match: str | None = None
    if_none_match: str | None = None
    size: int | None = None
    """x-amz-if-match-size, of a delete"""
    last_modified_s: int | None = None
    """x-amz-if-match-last-modified-time, of a delete: whole seconds since the epoch"""


# ------------------------------------------------------------------ write sessions


class OpenSession(Command, frozen=True):
    """A worker's new incarnation. session_id: 8 random bytes. → None"""

    session_id: bytes
    owner: str


class RenewSession(Command, frozen=True):
    """Keep the lease; oldest_read_age_ms: how long ago this worker's oldest running read began.

    → None. SessionFenced.
    """

    session_id: bytes
    oldest_read_age_ms: int


class CloseSession(Command, frozen=True):
    """The worker stops in order. → None"""

    session_id: bytes


class FenceSessions(Command, frozen=True):
    """Fence every open session that was not renewed for ttl_ms. → list[bytes]: the session ids fenced now.
    NotActiveMaster for a term that is over (0: not checked)."""

    ttl_ms: int
    term: int = 0


class ExtendLeases(Command, frozen=True):
    """The owner's own, when it begins to take writes: while it took none no worker could renew, so that fences nobody.
    No socket carries it. → None"""


class ForgetSessions(Command, frozen=True):
    """Remove the records of sessions that are not open and of which no chunk is left. → None. NotActiveMaster for a
    term that is over (0: not checked)."""

    session_ids: tuple[bytes, ...]
    term: int = 0


# ------------------------------------------------------------------ directory (each raises the configuration sequence)


class CreateUser(Command, frozen=True):
    """→ None. UserAlreadyExists for a taken name, canonical id or access key id."""

    user: User
    access_key: AccessKey | None = None


class PutRootUser(Command, frozen=True):
    """Make the root user and its one access key what the credentials say; a no-op when they already are. → None"""

    user: User
    access_key: AccessKey


class DeleteUser(Command, frozen=True):
    """→ None. NoSuchUser; BucketNotEmpty when the user still owns buckets; the root user is refused (LimitExceeded)."""

    name: str


class CreateAccessKey(Command, frozen=True):
    """→ None. NoSuchUser, UserAlreadyExists (the access key id is taken)."""

    access_key: AccessKey


class DeleteAccessKey(Command, frozen=True):
    """→ None; deleting an unknown one is no error."""

    access_key_id: str


class CreateBucket(Command, frozen=True):
    """→ Bucket. BucketAlreadyExists(owner_id=…); LimitExceeded when the owner has bucket_count_max buckets."""

    name: str
    owner_id: str
    region: str
    bucket_key_id: str
    versioning: Versioning = Versioning.UNVERSIONED
    settings: dict[str, bytes] = {}
    bucket_count_max: int = 1_000


class DeleteBucket(Command, frozen=True):
    """→ None. NoSuchBucket, BucketNotEmpty. Open uploads do not block it: they are aborted with it."""

    bucket_id: int


class PutBucketSetting(Command, frozen=True):
    """Set (or with None remove) one sub-resource document. → None. NoSuchBucket; InvalidBucketState for `object-lock`
    (the name of the setting that OBJECT_LOCK_SETTING holds) in a bucket whose versioning is not enabled."""

    bucket_id: int
    name: str
    document: bytes | None


class SetVersioning(Command, frozen=True):
    """→ None. NoSuchBucket; InvalidBucketState for anything but ENABLED in a bucket with an object-lock setting."""

    bucket_id: int
    versioning: Versioning


# ------------------------------------------------------------------ objects


class NewVersion(Record, frozen=True):
    """What becomes visible. etag bare; mac over (uid, size, blob list)."""

    uid: bytes
    size: int
    etag: str
    owner_id: str
    attributes: Attributes
    mac: bytes = b""


class CommitVersion(Command, frozen=True):
    """The commit of a PUT or a copy. → VersionCommitted.

    blobs: new blobs of this session. shared: extents of blobs that a live version already references (a copy within
    one bucket key); SourceChanged when one of them is no longer referenced. A zero-byte object has neither.
    What it replaces follows the bucket's versioning state, read in the same transaction.
    Errors: SessionFenced, NoSuchBucket, PreconditionFailed, ConditionalConflict, NoSuchKey (If-Match on a missing key).
    """

    session_id: bytes
    bucket_id: int
    object_key: bytes
    version: NewVersion
    blobs: tuple[Blob, ...] = ()
    shared: tuple[Extent, ...] = ()
    conditions: Conditions = Conditions()


class VersionCommitted(Record, frozen=True):
    """version_id is None in a bucket that was never versioned."""

    version_id: str | None
    last_modified_ms: int
    etag: str


class DeleteTarget(Record, frozen=True):
    """version_id None: the current version, by the rules of the bucket's versioning state.

    Conditions are of what would be removed or hidden. Where there is nothing (no such key, or no version of this id)
    they are not asked: the outcome is that of a deletion, and no marker is made. A marker meets `*` and no other ETag;
    its size is 0.
    """

    object_key: bytes
    version_id: str | None = None
    conditions: Conditions = Conditions()
    noncurrent_only: bool = False
    """one more condition: refused as PreconditionFailed when the version is the newest of its key"""


class DeleteVersions(Command, frozen=True):
    """Delete up to 1,000 targets. → list[Deleted], one per target in order; a refusal is an outcome, not an exception.

    A target that names a version (or replaces the null version) under a lock is refused as ObjectLocked. NoSuchBucket
    fails the command. The owner may apply it in several transactions, never splitting one target.
    """

    bucket_id: int
    targets: tuple[DeleteTarget, ...]
    bypass_governance: bool = False
    """the caller may delete versions under a GOVERNANCE retention; nothing bypasses COMPLIANCE or a legal hold"""


class Deleted(Record, frozen=True):
    """A missing key is deleted all the same. version_id: the version removed, or the marker made."""

    version_id: str | None = None
    is_marker: bool = False
    """the version removed was a marker, or a marker was made"""
    refusal: str = ""
    """name of a Refused class, `` when deleted"""


class Retention(Record, frozen=True):
    """mode NONE lifts the retention."""

    mode: LockMode
    retain_until_ms: int = 0


class ChangeObject(Command, frozen=True):
    """Change what may change of a version without making a new one; None leaves a part as it is. → ObjectChanged.

    version_id None: the current version. NoSuchBucket, NoSuchKey, NoSuchVersion (a marker is neither: NoSuchKey when it
    is current, NoSuchVersion with details is_marker=`true` when it was named). ObjectLocked: a COMPLIANCE retention
    that has not run out is only ever prolonged; a GOVERNANCE one is shortened, lifted or made a COMPLIANCE one only
    with bypass_governance. LastModified and the version id stay.
    """

    bucket_id: int
    object_key: bytes
    version_id: str | None = None
    tags: dict[str, str] | None = None
    acl: tuple[Grant, ...] | None = None
    retention: Retention | None = None
    legal_hold: bool | None = None
    bypass_governance: bool = False


class ObjectChanged(Record, frozen=True):
    """version_id: of the version changed; `null` for a null version."""

    version_id: str


class ReleaseBlobs(Command, frozen=True):
    """A failed write's chunks that could not be deleted at once: record them as released. → None

    Only blobs of this session that no row references; others are ignored.
    """

    session_id: bytes
    blobs: tuple[Blob, ...]


# ------------------------------------------------------------------ multipart uploads


class CreateUpload(Command, frozen=True):
    """→ Upload. NoSuchBucket. upload_id: chosen by the gateway, 32 random hex digits or more."""

    upload_id: str
    bucket_id: int
    object_key: bytes
    owner_id: str
    attributes: Attributes
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_type: ChecksumType | None = None


class PutPart(Command, frozen=True):
    """Record a part; the part it replaces is released. → PartInfo. SessionFenced, NoSuchUpload.

    blob: a new one of this session, or None for a part of no bytes.
    """

    session_id: bytes
    bucket_id: int
    object_key: bytes
    upload_id: str
    part_number: int
    size: int
    etag: str
    blob: Blob | None
    checksum: Checksum | None = None


class CompleteUpload(Command, frozen=True):
    """Make the listed parts a version and release the others. → VersionCommitted; the same again for a retry.

    parts: as ListParts gave them to the gateway, in the order of the list; InvalidPart when one has changed since.
    Errors as CommitVersion, and NoSuchUpload. Moves no byte; writes one row a part.
    """

    session_id: bytes
    bucket_id: int
    object_key: bytes
    upload_id: str
    version: NewVersion
    parts: tuple[PartInfo, ...]
    conditions: Conditions = Conditions()


class AbortUpload(Command, frozen=True):
    """Release its parts. → None. NoSuchUpload."""

    bucket_id: int
    object_key: bytes
    upload_id: str


# ------------------------------------------------------------------ cluster


class AcquireMasterLease(Command, frozen=True):
    """Become or stay the active master, by the clock of the records alone. → MasterLease: whose it is now.

    Granted to who holds it already (the term stays), and to anybody once it has run out or was released: then the
    epoch rises and is the new term, so that a term is never used twice. Safe to send again after a lost answer.
    """

    master_id: str
    """of one incarnation: chosen at random by each start of a master"""
    address: str
    """where the others reach it"""
    ttl_ms: int
    is_successor: bool = False
    """this incarnation serves `address`, so an earlier one that held the lease from there is gone: take it over"""


class ReleaseMasterLease(Command, frozen=True):
    """The holder stops in order: anybody may take over at once. → None; no error for who does not hold it."""

    master_id: str


class MasterLease(Record, frozen=True):
    """term: what the holder's writes to the registry carry. expires_ms: by the clock of the records."""

    master_id: str
    address: str
    term: int
    expires_ms: int


class RegisterNode(Command, frozen=True):
    """Record a datanode that was heard of or whose report changed. → Node (its number is made at first sight).
    NotActiveMaster unless `term` is that of the newest lease; 0 where no master ever took one."""

    report: NodeReport
    state: NodeState
    term: int = 0


class SetNodeState(Command, frozen=True):
    """→ None. Raises the epoch when it changes something. A closed node is opened when it leaves DRAINING for anything
    but GONE. NotActiveMaster as for RegisterNode."""

    node_id: str
    state: NodeState
    term: int = 0


class SetNodeClosed(Command, frozen=True):
    """Open or close a node for commits: while it is closed, a commit, a part or a Relayout that names it, and a
    SetReplicas that names it where `expected` does not, is refused as StalePlacement. Every such write that was applied
    before is seen by every read that begins after this was answered. → None. Raises the epoch when it changes
    something. NotActiveMaster as for RegisterNode."""

    node_id: str
    is_closed: bool
    term: int = 0


class SetReplicas(Command, frozen=True):
    """After a copy or a loss: the verified replicas (or fragments, in their order, 0 for none) of one chunk. → bool:
    False when the row is gone, or differs from `expected` or in its generation (then whatever was copied is not
    referenced). StalePlacement; NotActiveMaster for a term that is over (0: of a gateway, which has none; not checked).
    """

    blob_id: bytes
    chunk_index: int
    expected: tuple[int, ...]
    nodes: tuple[int, ...]
    generation: int = 0
    term: int = 0


class ChunkLayout(Record, frozen=True):
    """Where the pieces of one chunk are; as the fields of Chunk."""

    index: int
    digest: bytes
    nodes: tuple[int, ...]


class Relayout(Command, frozen=True):
    """The chunks of a blob were made durable a second time, in another redundancy, as new_generation (0: generation +
    1): make that the layout. → bool: False when the blob is gone or released, has another generation, or these are not
    exactly its chunks (then what was written is not referenced). StalePlacement; NotActiveMaster for a term that is
    over (0: not checked); LimitExceeded for a new generation that is not above the old one, or above GENERATION_MAX.

    Each attempt writes under a generation of its own, so that the clean-up of one that failed, however late it arrives,
    never meets chunks of another.

    The old layout is kept as a released blob of its old generation (list_released_blobs) until ForgetBlobs names both.
    """

    blob_id: bytes
    generation: int
    redundancy: str
    chunks: tuple[ChunkLayout, ...]
    term: int = 0
    new_generation: int = 0


class ForgetBlobs(Command, frozen=True):
    """The chunks of these released blobs, or of these old layouts of blobs, were deleted from every node: remove their
    rows. → None. NotActiveMaster for a term that is over (0: not checked).

    generations: of each blob id, in the same order; empty stands for 0 throughout. What is referenced, or has another
    generation by now, is left alone.
    """

    blob_ids: tuple[bytes, ...]
    generations: tuple[int, ...] = ()
    term: int = 0


AnyCommand = (
    OpenSession
    | RenewSession
    | CloseSession
    | FenceSessions
    | ForgetSessions
    | CreateUser
    | PutRootUser
    | DeleteUser
    | CreateAccessKey
    | DeleteAccessKey
    | CreateBucket
    | DeleteBucket
    | PutBucketSetting
    | SetVersioning
    | CommitVersion
    | DeleteVersions
    | ChangeObject
    | ReleaseBlobs
    | CreateUpload
    | PutPart
    | CompleteUpload
    | AbortUpload
    | AcquireMasterLease
    | ReleaseMasterLease
    | RegisterNode
    | SetNodeState
    | SetNodeClosed
    | SetReplicas
    | Relayout
    | ForgetBlobs
)
