"""The metadata as the rest of the system sees it: typed writes through `apply`, and reads that are one snapshot each.

Isolation, for every engine: a write is serialisable with all other writes. A read sees one committed state; a read that
begins after a write was acknowledged sees that write, in every process. A read never waits for a write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from storage.metadata.commands import Command
from storage.model import (
    AccessKey,
    Blob,
    Bucket,
    ByteRange,
    Chunk,
    ClusterMap,
    Extent,
    PartInfo,
    Upload,
    User,
    Version,
    WriteSession,
)

CHUNK_PAGE_ROWS = 64
"""chunk rows that a read brings along; the reader pages on with read_chunks"""


class VersionRead(NamedTuple):
    """One object read. extents and blobs cover only the asked range (both empty for a HEAD, a marker, an unsatisfiable
    range and an empty object); each blob carries at most its first CHUNK_PAGE_ROWS chunk rows of the range, and all
    blobs together at most that many. There is one blob per extent, in the same order.

    Asked for a part, a HEAD does get its extents, without blobs: they are the part's span. A part of no bytes is an
    extent of length 0 with an empty blob id, and without a blob."""

    configuration_sequence: int
    version: Version
    is_current: bool
    extents: tuple[Extent, ...] = ()
    blobs: tuple[Blob, ...] = ()


class HeadEntry(NamedTuple):
    """A line of a listing."""

    object_key: bytes
    size: int
    etag: str
    last_modified_ms: int
    storage_class: str
    owner_id: str
    checksum_algorithm: str
    checksum_type: str


class HeadPage(NamedTuple):
    """A page of a listing. `next_after` continues it: the last key or prefix of this page, None at the end."""

    entries: tuple[HeadEntry, ...]
    common_prefixes: tuple[bytes, ...]
    next_after: bytes | None


class VersionEntry(NamedTuple):
    """A line of a listing of versions."""

    object_key: bytes
    version_id: str
    is_latest: bool
    is_marker: bool
    size: int
    etag: str
    last_modified_ms: int
    storage_class: str
    owner_id: str
    checksum_algorithm: str
    checksum_type: str


class VersionPage(NamedTuple):
    """A page of a listing of versions, paged on (key, version id); the id is `` after a common prefix."""

    entries: tuple[VersionEntry, ...]
    common_prefixes: tuple[bytes, ...]
    next_after: tuple[bytes, str] | None


class UploadPage(NamedTuple):
    """Paged on (key, upload id)."""

    uploads: tuple[Upload, ...]
    common_prefixes: tuple[bytes, ...]
    next_after: tuple[bytes, str] | None


class PartPage(NamedTuple):
    """Paged on the part number."""

    upload: Upload
    parts: tuple[PartInfo, ...]
    next_after: int | None


class CompletedUpload(NamedTuple):
    """What a finished multipart upload answered, for a retry."""

    bucket_id: int
    object_key: bytes
    version_id: str | None
    etag: str
    last_modified_ms: int


class ChunkPlace(NamedTuple):
    """What the records say of one chunk, for those who look after it: no key."""

    blob_id: bytes
    chunk_index: int
    length: int
    """of plaintext"""
    digest: bytes
    nodes: tuple[int, ...]
    redundancy: str
    generation: int
    is_released: bool
    """nothing references its blob any more: it is about to be swept"""


class BlobUser(NamedTuple):
    """Who references a blob: a version, or a part of an open upload (version_id is empty then)."""

    blob_id: bytes
    bucket_name: str
    object_key: bytes
    version_id: str
    upload_id: str = ""


class BlobPage(NamedTuple):
    """Blobs without chunk rows. `next_after` continues the page, None at the end."""

    blobs: tuple[Blob, ...]
    next_after: int | None


class AtOnce(Protocol):
    """What an engine can do within one turn of the event loop, so that a small request needs no task of its own. Every
    method may raise Unavailable."""

    def configuration_sequence(self) -> int:
        """As Metadata.configuration_sequence."""
        ...

    def read_small(self, bucket_id: int, object_key: bytes) -> VersionRead | None:
        """The current version where one inline blob, or one chunk, is all of it; None: ask Metadata.read_version."""
        ...

    def submit(self, command: Command, on_outcome: Callable[[Any], None]) -> None:
        """As Metadata.apply; the outcome, which may be a FrostbyteError, is told later, and once. What is raised here
        was not applied."""
        ...


class Metadata(Protocol):
    """One store of records. Every method may raise Unavailable."""

    @property
    def at_once(self) -> AtOnce | None:
        """None: every call of this engine waits for a server."""
        return None

    async def apply(self, command: Command) -> Any:
        """One transaction. Returns what the command's docstring says; raises its refusals. Durable when it returns.

        Unavailable with details outcome=`unknown`: the answer was lost, the command may have been committed. Chunks of
        such a commit must not be deleted; ReleaseBlobs and the sweeper spare what a row references. Unavailable
        without it: the command was not applied and will not be."""
        ...

    # --- directory: configuration, cached by its sequence

    async def configuration_sequence(self) -> int:
        """Rises with every change of users, access keys, buckets and settings. Cheap."""
        ...

    async def find_access_key(self, access_key_id: str) -> tuple[AccessKey, User] | None: ...

    async def find_user(self, canonical_id: str) -> User | None: ...

    async def find_user_by_email(self, email: str) -> User | None:
        """The one user with this e-mail address; None for none, for several and for an empty address."""
        ...

    async def find_user_by_name(self, name: str) -> User | None: ...

    async def list_users(self) -> list[tuple[User, list[AccessKey]]]:
        """By name."""
        ...

    async def find_bucket(self, name: str) -> Bucket | None: ...

    async def list_buckets(self, owner_id: str | None, after: str = "", limit: int = 10_000) -> list[Bucket]:
        """By name; all owners for None."""
        ...

    # --- objects

    async def read_version(
        self,
        bucket_id: int,
        object_key: bytes,
        version_id: str | None = None,
        *,
        byte_range: ByteRange | None = None,
        part_number: int | None = None,
        with_body: bool = True,
    ) -> VersionRead:
        """One snapshot. NoSuchKey (details when a marker is current: delete_marker_version_id, last_modified_ms),
        NoSuchVersion. A marker asked for by its id is returned with is_marker. part_number: the extents of that part
        only (InvalidPart when there is none; part 1 of a version that is not multipart is the whole)."""
        ...

    async def read_chunks(self, blob_id: bytes, from_index: int, limit: int = CHUNK_PAGE_ROWS) -> list[Chunk]:
        """Further chunk rows by index; still answered for a released blob until it is swept."""
        ...

    async def list_heads(
        self, bucket_id: int, *, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
    ) -> HeadPage:
        """Current versions (no markers) with object_key > after, in byte order; keys with the delimiter after the
        prefix roll up into common prefixes, which count towards the limit. A common prefix that is <= after (as
        `next_after` of a page that ended with it) is not given again, nor any key below it. Skip-scan: a rolled-up
        prefix costs one seek."""
        ...

    async def list_versions(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> VersionPage:
        """Every version and marker by key, the newest of a key first. With after[1] empty, keys > after[0]; with it,
        what is older than that version under its key, and then further keys. after[1] may name a version that is gone:
        an id places itself in the order; a `null` that is gone continues with the next key. Common prefixes as in
        list_heads; skip-scan."""
        ...

    # --- multipart uploads

    async def read_upload(self, bucket_id: int, object_key: bytes, upload_id: str) -> Upload:
        """NoSuchUpload."""
        ...

    async def find_completed_upload(
        self, bucket_id: int, object_key: bytes, upload_id: str
    ) -> CompletedUpload | None: ...

    async def list_parts(
        self, bucket_id: int, object_key: bytes, upload_id: str, after: int = 0, limit: int = 10_000
    ) -> PartPage:
        """NoSuchUpload."""
        ...

    async def list_uploads(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> UploadPage:
        """Open uploads ordered by (key, upload id). With after[1] empty, keys > after[0]; with it, uploads > after."""
        ...

    # --- cluster

    async def cluster_map(self) -> ClusterMap: ...

    async def list_sessions(self) -> list[WriteSession]: ...

    async def list_released_blobs(self, before_ms: int, limit: int) -> list[Blob]:
        """Blobs released before this time, each with all of its chunk rows; the oldest first. Old layouts of blobs
        (see Relayout) are among them, with the generation, redundancy, digests and nodes that they had, and no keys."""
        ...

    async def list_chunk_places(self, after: tuple[bytes, int] | None, limit: int) -> list[ChunkPlace]:
        """Every chunk that datanodes keep (inline ones are not), released or not, by (blob id, index), after the given
        one. Old layouts are not given."""
        ...

    async def find_chunk_places(self, chunks: Sequence[tuple[bytes, int]]) -> list[ChunkPlace]:
        """Those of these (blob id, index) that have a row, in no order. At most a few hundred at once."""
        ...

    async def find_blob_users(self, blob_ids: Sequence[bytes], limit: int) -> list[BlobUser]:
        """The versions and parts that these blobs are in, at most `limit`."""
        ...

    async def list_bucket_blobs(self, bucket_id: int, after: int, limit: int) -> BlobPage:
        """The blobs that datanodes keep for versions of a bucket, in the order of the versions' rows: those among the
        next `limit` versions, of whichever bucket, with a row after `after` (0 at first); a page may be empty and not
        the last. A blob that copies share may be given again. PostgreSQL: a version that is committed meanwhile may get
        a row that was passed already."""
        ...

    async def find_referenced_blobs(self, blob_ids: Sequence[bytes]) -> set[bytes]:
        """Those that have a blob row at all (referenced or released)."""
        ...

    @property
    def loss_window(self) -> tuple[str, ...]:
        """What an acknowledged write does not survive, as the engine found it when it was opened: one line each."""
        return ()

    async def close(self) -> None: ...
