"""PURE. The records that the packages hand to each other: frozen, serialisable by msgspec, states as enums.

Sizes are bytes, times are milliseconds since the epoch (UTC). Object keys are bytes everywhere below s3gw.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from storage.base.ids import NULL_VERSION_ID, format_version_id


class Record(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """Base of everything that crosses a socket; array_like keeps the wire small, so fields are only ever appended."""


class Versioning(enum.StrEnum):
    """AWS: a bucket that was never versioned has no status at all."""

    UNVERSIONED = ""
    ENABLED = "Enabled"
    SUSPENDED = "Suspended"


class ChecksumAlgorithm(enum.StrEnum):
    """As spelled in x-amz-checksum-algorithm."""

    CRC32 = "CRC32"
    CRC32C = "CRC32C"
    CRC64NVME = "CRC64NVME"
    SHA1 = "SHA1"
    SHA256 = "SHA256"


class ChecksumType(enum.StrEnum):
    """As spelled in x-amz-checksum-type."""

    FULL_OBJECT = "FULL_OBJECT"
    COMPOSITE = "COMPOSITE"


class Checksum(Record, frozen=True):
    """A checksum as stored and returned. `value` is base64; a COMPOSITE one ends with `-N`."""

    algorithm: ChecksumAlgorithm
    value: str
    type: ChecksumType = ChecksumType.FULL_OBJECT


class User(Record, frozen=True):
    """An account. canonical_id: 64 hex digits unless the operator chose another."""

    canonical_id: str
    name: str
    display_name: str
    email: str = ""
    is_root: bool = False
    created_ms: int = 0


class AccessKey(Record, frozen=True):
    """Credentials of a user; the secret is sealed under the keyring's system key."""

    access_key_id: str
    canonical_id: str
    sealed_secret: bytes
    enabled: bool = True
    created_ms: int = 0


class Bucket(Record, frozen=True):
    """A bucket. `settings` holds sub-resource documents (`cors`, `policy`, …) by name, exactly as they were put."""

    bucket_id: int
    name: str
    owner_id: str
    region: str
    created_ms: int
    bucket_key_id: str
    versioning: Versioning = Versioning.UNVERSIONED
    settings: dict[str, bytes] = {}


class Grant(Record, frozen=True):
    """One line of an access control list."""

    grantee: str
    """a canonical id, or `group:AllUsers`, `group:AuthenticatedUsers`, `group:LogDelivery`"""
    permission: str
    """FULL_CONTROL, READ, WRITE, READ_ACP or WRITE_ACP"""


class LockMode(enum.StrEnum):
    """Of a retention. A COMPLIANCE one is never shortened or lifted, by nobody."""

    NONE = ""
    GOVERNANCE = "GOVERNANCE"
    COMPLIANCE = "COMPLIANCE"


class ObjectLock(Record, frozen=True):
    """What keeps a version from being deleted: a retention that has not run out, or a legal hold."""

    mode: LockMode = LockMode.NONE
    retain_until_ms: int = 0
    legal_hold: bool = False


class Attributes(Record, frozen=True):
    """What the client said of an object and gets back. Header names lower-case; user metadata without `x-amz-meta-`.

    tags, acl and lock may be changed later (ChangeObject); a Version that is read carries them as they are now.
    """

    content_type: str = "binary/octet-stream"
    headers: dict[str, str] = {}
    """content-encoding, content-disposition, content-language, cache-control, expires, website-redirect-location"""
    user_metadata: dict[str, str] = {}
    storage_class: str = "STANDARD"
    checksum: Checksum | None = None
    tags: dict[str, str] = {}
    sse: dict[str, str] = {}
    """empty: sealed like everything, nothing asked; else what was asked for, by s3gw.protocol.encryption's names"""
    acl: tuple[Grant, ...] | None = None
    """None: the object's owner has full control and nobody else anything"""
    lock: ObjectLock = ObjectLock()
    part_digests: bytes = b""
    """of a multipart object: for each part its number (u16, big-endian) and the digest that the object's checksum was
    made from, nothing where there is none"""


class Chunk(Record, frozen=True):
    """One sealed chunk of a blob. offset and length count plaintext inside the blob.

    wrapped_key: the data key under the blob's wrapping key (48 bytes). digest: of the sealed bytes, as datanodes
    give it (8 bytes, CRC-64/NVME big-endian). nodes: node numbers of the verified replicas; empty for an inline chunk.

    Erasure-coded (the blob's redundancy says so): digest is one of 8 bytes for each fragment, and nodes has exactly one
    number for each fragment, in the order of the fragments; 0 for a fragment that is nowhere.
    """

    index: int
    offset: int
    length: int
    wrapped_key: bytes
    digest: bytes
    nodes: tuple[int, ...] = ()


class Blob(Record, frozen=True):
    """The bytes of one PUT or one part. `inline` holds the sealed bytes of the only chunk of a small blob."""

    blob_id: bytes
    size: int
    bucket_key_id: str
    bucket_key_version: int
    redundancy: str
    """`inline`, `replica:R` or `ec:k+m`"""
    chunks: tuple[Chunk, ...] = ()
    inline: bytes | None = None
    generation: int = 0
    """of the layout that the chunks have now; see storage.base.ids.stored_chunk_id"""


class Extent(Record, frozen=True):
    """A blob's place in a version. part_number is 0 for a version that was not made by multipart."""

    blob_id: bytes
    offset: int
    length: int
    part_number: int = 0


class Version(Record, frozen=True):
    """An immutable body, or a delete marker. mac: HMAC under the bucket key over (uid, size, blob list); see crypto."""

    row_id: int
    object_key: bytes
    sequence: int
    uid: bytes
    is_null: bool
    is_marker: bool
    size: int
    etag: str
    """without quotes"""
    last_modified_ms: int
    owner_id: str
    attributes: Attributes
    mac: bytes = b""
    part_count: int = 0
    """0 unless made by multipart"""

    @property
    def version_id(self) -> str:
        """As clients see it."""
        return NULL_VERSION_ID if self.is_null else format_version_id(self.sequence, self.uid)


class ByteRange(NamedTuple):
    """A parsed single Range (RFC 9110 §14.1.2) before the size is known: first..last, first.. or the last `suffix`."""

    first: int | None
    last: int | None
    suffix: int | None = None

    def resolve(self, size: int) -> tuple[int, int] | None:
        """(start, end) with end exclusive, clamped to the size; None when unsatisfiable (416)."""
        if self.suffix is not None:
            return (max(0, size - self.suffix), size) if self.suffix > 0 and size > 0 else None
        start = self.first or 0
        if start >= size:
            return None
        return start, size if self.last is None else min(self.last + 1, size)


class PartInfo(Record, frozen=True):
    """An uploaded part."""

    part_number: int
    size: int
    etag: str
    last_modified_ms: int
    blob_id: bytes
    checksum: Checksum | None = None


class Upload(Record, frozen=True):
    """An open multipart upload. checksum_algorithm/type as asked for at Create (None: the default, CRC64NVME)."""

    upload_id: str
    bucket_id: int
    object_key: bytes
    owner_id: str
    initiated_ms: int
    attributes: Attributes
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum_type: ChecksumType | None = None


class NodeState(enum.StrEnum):
    """The life of a datanode as the master sees it."""

    JOINING = "joining"
    UP = "up"
    SUSPECT = "suspect"
    DEAD = "dead"
    DRAINING = "draining"
    GONE = "gone"


MEDIUM_ERROR_CHARACTERS_MAX = 200
"""of what a report says is wrong with a medium"""


class NodeReport(Record, frozen=True):
    """What a datanode says of itself when it registers and with every heartbeat."""

    node_id: str
    """uuid4 hex, made once, kept in the data directory"""
    cluster_id: str
    address: str
    """`unix:/path`, `http://host:port` (loopback only) or `https://host:port`"""
    failure_domain: str
    """zone, host or disk: `zone/host/st_dev`"""
    capacity_bytes: int
    free_bytes: int
    reserve_bytes: int
    format_version: int
    chunk_count: int = 0
    durability: str = "fsync"
    """`fsync`, or `none` where the operator switched syncing off for a benchmark"""
    stored_bytes: int = 0
    """of sealed chunks, as counted by the last look through the directory and what changed since"""
    requests: int = 0
    """under way when the report was made: its load"""
    damaged_count: int = 0
    """chunks that were found rotten and set aside, and for which the master has not said yet that it knows"""
    unverified_count: int = 0
    """chunks that were never read whole from the medium since they were written"""
    oldest_verified_ms: int = 0
    """of the others: when the one that was read longest ago was read; 0 when there is none"""
    clock_ms: int = 0
    """the node's wall clock when it made the report; 0 of a release that did not say"""
    medium_error: str = ""
    """what is wrong with its medium, in a line; empty while it can be written and read"""


class Node(Record, frozen=True):
    """A registry record: the report last heard and the number that placements are written with."""

    number: int
    report: NodeReport
    state: NodeState
    last_heard_ms: int
    is_closed: bool = False
    """no commit may name it any more: set before the last look of a drain, so that nothing comes after it"""


class ClusterMap(Record, frozen=True):
    """Every known node under one epoch, which rises with every change of membership or state."""

    epoch: int
    nodes: tuple[Node, ...] = ()


class SessionState(enum.StrEnum):
    """Of a write session. Only an OPEN one can commit."""

    OPEN = "open"
    FENCED = "fenced"
    CLOSED = "closed"


class WriteSession(Record, frozen=True):
    """One incarnation of a writing worker."""

    session_id: bytes
    owner: str
    """role, host and process id: for people"""
    state: SessionState
    opened_ms: int
    renewed_ms: int
    oldest_read_ms: int
    """no read of this worker began before"""
