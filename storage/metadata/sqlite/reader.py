"""SqliteMetadata: the interface over a read-only connection of this process and a way to the one writer.

Point reads and listing pages run straight on the event loop: a point read costs about as much as handing it to a thread
would cost alone (ARCHITECTURE.md has the figures). Reads whose length is not bounded by a page run on the thread of an
aiosqlite connection.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiosqlite

from storage.metadata.chunk_rows import collect_blobs, collect_released, place_of, user_of
from storage.metadata.commands import Command
from storage.metadata.interface import (
    CHUNK_PAGE_ROWS,
    AtOnce,
    BlobPage,
    BlobUser,
    ChunkPlace,
    CompletedUpload,
    HeadPage,
    Metadata,
    PartPage,
    UploadPage,
    VersionPage,
    VersionRead,
)
from storage.metadata.sqlite import (
    blobs,
    buckets,
    configuration,
    layouts,
    listing,
    nodes,
    objects,
    places,
    sessions,
    uploads,
    users,
    version_listing,
)
from storage.metadata.sqlite.database import Execute, Snapshot, connect_reader, read_only_uri, translate
from storage.metadata.sqlite.schema import read_schema_version, require_known_version
from storage.model import AccessKey, Blob, Bucket, ByteRange, Chunk, ClusterMap, Upload, User, WriteSession

_IDS_PER_QUERY = 500

T = TypeVar("T")


class CommandDoor(Protocol):
    """The way to the writer: the socket, or the committer of this process."""

    async def apply(self, command: Command) -> Any: ...

    def submit(self, command: Command, on_outcome: Callable[[Any], None]) -> None: ...

    def configuration_sequence(self) -> int | None:
        """Where it can be known without asking the database."""
        ...

    async def close(self) -> None: ...


class _SqliteAtOnce(AtOnce):
    """Point reads on the connection of the event loop, and the way to the writer."""

    def __init__(self, execute: Execute, door: CommandDoor) -> None:
        self._execute = execute
        self._door = door

    def configuration_sequence(self) -> int:
        told = self._door.configuration_sequence()
        if told is not None:
            return told
        try:
            return configuration.configuration_sequence(self._execute)
        except sqlite3.Error as error:
            raise translate(error) from error

    def read_small(self, bucket_id: int, object_key: bytes) -> VersionRead | None:
        try:
            return objects.read_single(self._execute, bucket_id, object_key)
        except sqlite3.Error as error:
            raise translate(error) from error

    def submit(self, command: Command, on_outcome: Callable[[Any], None]) -> None:
        self._door.submit(command, on_outcome)


class SqliteMetadata(Metadata):
    """Opened by storage.metadata.sqlite.open."""

    def __init__(self, path: Path, door: CommandDoor, on_close: Callable[[], Awaitable[None]] | None = None) -> None:
        self._path = path
        self._door = door
        self._on_close = on_close
        self._connection = connect_reader(path)
        require_known_version(read_schema_version(self._connection))
        self._cursor = self._connection.cursor()
        self._long_reads: aiosqlite.Connection | None = None
        self._long_reads_lock = asyncio.Lock()

    async def apply(self, command: Command) -> Any:
        return await self._door.apply(command)

    @property
    def at_once(self) -> AtOnce:
        return _SqliteAtOnce(self._cursor.execute, self._door)

    # ------------------------------------------------------------------ directory

    async def configuration_sequence(self) -> int:
        return self._read(configuration.configuration_sequence)

    async def find_access_key(self, access_key_id: str) -> tuple[AccessKey, User] | None:
        return self._read_snapshot(users.find_access_key, access_key_id)

    async def find_user(self, canonical_id: str) -> User | None:
        return self._read(users.find_user, canonical_id)

    async def find_user_by_email(self, email: str) -> User | None:
        return self._read(users.find_user_by_email, email)

    async def find_user_by_name(self, name: str) -> User | None:
        return self._read(users.find_user_by_name, name)

    async def list_users(self) -> list[tuple[User, list[AccessKey]]]:
        return self._read_snapshot(users.list_users)

    async def find_bucket(self, name: str) -> Bucket | None:
        return self._read_snapshot(buckets.find_bucket, name)

    async def list_buckets(self, owner_id: str | None, after: str = "", limit: int = 10_000) -> list[Bucket]:
        return self._read_snapshot(buckets.list_buckets, owner_id, after, limit)

    # ------------------------------------------------------------------ objects

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
        if with_body and version_id is None and byte_range is None and part_number is None:
            read = self._read(objects.read_single, bucket_id, object_key)
            if read is not None:
                return read
        return self._read_snapshot(
            objects.read_version, bucket_id, object_key, version_id, byte_range, part_number, with_body
        )

    async def read_chunks(self, blob_id: bytes, from_index: int, limit: int = CHUNK_PAGE_ROWS) -> list[Chunk]:
        return self._read_snapshot(blobs.read_chunks, blob_id, from_index, limit)

    async def list_heads(
        self, bucket_id: int, *, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
    ) -> HeadPage:
        return self._read_snapshot(
            listing.list_heads, bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=limit
        )

    async def list_versions(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> VersionPage:
        return self._read_snapshot(
            version_listing.list_versions, bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # ------------------------------------------------------------------ multipart uploads

    async def read_upload(self, bucket_id: int, object_key: bytes, upload_id: str) -> Upload:
        return self._read(uploads.read_upload, bucket_id, object_key, upload_id)

    async def find_completed_upload(self, bucket_id: int, object_key: bytes, upload_id: str) -> CompletedUpload | None:
        return self._read(uploads.find_completed_upload, bucket_id, object_key, upload_id)

    async def list_parts(
        self, bucket_id: int, object_key: bytes, upload_id: str, after: int = 0, limit: int = 10_000
    ) -> PartPage:
        return self._read_snapshot(uploads.list_parts, bucket_id, object_key, upload_id, after, limit)

    async def list_uploads(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> UploadPage:
        return self._read_snapshot(
            listing.list_uploads, bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # ------------------------------------------------------------------ cluster

    async def cluster_map(self) -> ClusterMap:
        return self._read_snapshot(nodes.cluster_map)

    async def list_sessions(self) -> list[WriteSession]:
        return self._read(sessions.list_sessions)

    async def list_released_blobs(self, before_ms: int, limit: int) -> list[Blob]:
        rows = await self._read_long(layouts.RELEASED_WITH_CHUNKS, (before_ms, limit))
        return collect_released(rows, limit)

    async def list_chunk_places(self, after: tuple[bytes, int] | None, limit: int) -> list[ChunkPlace]:
        rows = await self._read_long(places.CHUNK_PLACES, (*(after or (b"", -1)), limit))
        return [place_of(row) for row in rows]

    async def find_chunk_places(self, chunks: Sequence[tuple[bytes, int]]) -> list[ChunkPlace]:
        found: list[ChunkPlace] = []
        for at in range(0, len(chunks), _IDS_PER_QUERY):
            some = chunks[at : at + _IDS_PER_QUERY]
            rows = await self._read_long(places.select_places(len(some)), [value for chunk in some for value in chunk])
            found.extend(place_of(row) for row in rows)
        return found

    async def find_blob_users(self, blob_ids: Sequence[bytes], limit: int) -> list[BlobUser]:
        found: list[BlobUser] = []
        for at in range(0, len(blob_ids), _IDS_PER_QUERY):
            some = blob_ids[at : at + _IDS_PER_QUERY]
            rows = await self._read_long(places.select_users(len(some)), (*some, limit - len(found)))
            found.extend(user_of(row) for row in rows)
        return list(dict.fromkeys(found))

    async def list_bucket_blobs(self, bucket_id: int, after: int, limit: int) -> BlobPage:
        return collect_blobs(await self._read_long(places.BUCKET_BLOBS, (after, limit, bucket_id)), limit)

    async def find_referenced_blobs(self, blob_ids: Sequence[bytes]) -> set[bytes]:
        found: set[bytes] = set()
        for at in range(0, len(blob_ids), _IDS_PER_QUERY):
            some = blob_ids[at : at + _IDS_PER_QUERY]
            rows = await self._read_long(blobs.select_recorded(len(some)), some)
            found.update(row[0] for row in rows)
        return found

    async def close(self) -> None:
        if self._long_reads is not None:
            await self._long_reads.close()
        self._connection.close()
        await self._door.close()
        if self._on_close is not None:
            await self._on_close()

    # ------------------------------------------------------------------ how a read runs

    def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        """One statement, which is a snapshot by itself."""
        try:
            return function(self._cursor.execute, *arguments)
        except sqlite3.Error as error:
            raise translate(error) from error

    def _read_snapshot(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Several statements on one committed state."""
        try:
            with Snapshot(self._connection) as execute:
                return function(execute, *arguments, **named)
        except sqlite3.Error as error:
            raise translate(error) from error

    async def _read_long(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """One statement on the thread for long reads."""
        try:
            async with self._long_reads_lock:
                if self._long_reads is None:
                    self._long_reads = await aiosqlite.connect(read_only_uri(self._path), uri=True)
                return list(await self._long_reads.execute_fetchall(statement, arguments))
        except sqlite3.Error as error:
            raise translate(error) from error
