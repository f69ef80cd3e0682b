"""Taking a snapshot of the database while it is written to, and putting one together again.

    1 copy     a read transaction, whose sequence is in the database itself; its pages into metadata/snapshot.tmp
    2 pieces   each read, hashed, compressed, sealed, and put on every datanode of an ensemble
    3 manifest likewise, last
    4 the copy is removed

A crash after 1 leaves a file that the next attempt removes; inside 2 pieces without a manifest, which are deleted when
the next snapshot is whole; after 3 a snapshot. In memory is one piece at a time, on the disk one copy of the database;
the copy holds back the start-over of the write-ahead log as long as it takes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage.base.clock import Clock
from storage.base.errors import Corrupt, FrostbyteError, Unavailable
from storage.datanode.journal_wire import snapshot_name
from storage.journal.keys import JournalKeys
from storage.journal.segment import Replicas
from storage.journal.snapshot_format import PIECE_BYTES, Manifest, SnapshotSeal
from storage.journal.stock import StoredSnapshot, read_piece
from storage.metadata.sqlite.database import connect_reader
from storage.metadata.sqlite.position import Position, read_position
from storage.metadata.sqlite.schema import read_schema_version
from storage.metadata.sqlite.space import RESERVE_BYTES

SCRATCH_NAME = "snapshot.tmp"
PAGES_PER_STEP = 1_024
PUT_TIMEOUT_S = 30.0


class SnapshotFailed(FrostbyteError):
    """numbers: of the datanodes that did not take it."""

    def __init__(self, message: str, numbers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.numbers = numbers


class Taken(NamedTuple):
    """A snapshot that is whole on all of its datanodes (by number)."""

    snapshot_id: bytes
    manifest: Manifest
    numbers: tuple[int, ...]


class _Copied(NamedTuple):
    position: Position
    schema_version: int
    size_bytes: int


class _StoppedError(Exception):
    """The copy is not wanted any more."""


class SnapshotTaker:
    """One at a time, of one database."""

    def __init__(self, database: Path, keys: JournalKeys, clock: Clock) -> None:
        self._database = database
        self._scratch = database.with_name(SCRATCH_NAME)
        self._keys = keys
        self._clock = clock
        self.running: bytes | None = None
        """the id of the one that is being taken"""

    async def take(self, history: int, replicas: Replicas, owner: bytes) -> Taken:
        """owner: what datanodes know the writer by. SnapshotFailed; Unavailable without room for a copy."""
        try:
            taken_ms = self._clock.now_ms()
            copied = await self._copy()
            if copied.position.history != history:
                raise SnapshotFailed("another journal began meanwhile")
            self.running, seal = self._keys.new_snapshot(copied.position.sequence)
            digest = await self._put_pieces(seal, copied, replicas, owner)
            manifest = Manifest(
                history,
                copied.position.sequence,
                copied.position.applied_at_ms,
                taken_ms,
                copied.schema_version,
                copied.size_bytes,
                digest,
                _count_pieces(copied.size_bytes),
            )
            await _put(replicas, owner, snapshot_name(self.running), seal.seal_manifest(manifest))
            return Taken(self.running, manifest, tuple(node.number for node, _ in replicas))
        finally:
            self.running = None
            self.clear()

    def clear(self) -> None:
        """Remove what an attempt left on this disk."""
        for suffix in ("", "-journal", "-wal", "-shm"):
            self._scratch.with_name(SCRATCH_NAME + suffix).unlink(missing_ok=True)

    async def _copy(self) -> _Copied:
        stop = threading.Event()
        work = asyncio.ensure_future(asyncio.to_thread(self._copy_pages, stop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            with suppress(Exception):
                await work
            raise

    def _copy_pages(self, stop: threading.Event) -> _Copied:
        def look(_status: int, _remaining: int, _total: int) -> None:
            if stop.is_set():
                raise _StoppedError

        self.clear()
        self._scratch.touch(mode=0o600)
        with closing(connect_reader(self._database)) as source:
            source.execute("BEGIN")
            position = read_position(source.execute)
            schema_version = read_schema_version(source)
            size_bytes = _size_of(source)
            if _free_bytes(self._database.parent) < size_bytes + RESERVE_BYTES:
                raise Unavailable(f"no room for a copy of {size_bytes} bytes beside the metadata")
            with closing(sqlite3.connect(self._scratch, isolation_level=None)) as target:
                target.execute("PRAGMA synchronous=OFF")
                source.backup(target, pages=PAGES_PER_STEP, progress=look, sleep=0)
        return _Copied(position, schema_version, self._scratch.stat().st_size)

    async def _put_pieces(self, seal: SnapshotSeal, copied: _Copied, replicas: Replicas, owner: bytes) -> bytes:
        """→ the digest of the whole file."""
        assert self.running is not None
        digest = hashlib.sha256()

        def next_piece(file: BinaryIO, number: int) -> bytes:
            content = file.read(PIECE_BYTES)
            digest.update(content)
            return seal.seal_piece(number, content)

        with self._scratch.open("rb") as file:
            for number in range(_count_pieces(copied.size_bytes)):
                data = await asyncio.to_thread(next_piece, file, number)
                await _put(replicas, owner, snapshot_name(self.running, number), data)
        return digest.digest()


async def restore_snapshot(snapshot: StoredSnapshot, target: BinaryIO) -> None:
    """Write the database's file. Corrupt when a piece has no good replica or they do not add up."""
    manifest = snapshot.manifest
    digest, size_bytes = hashlib.sha256(), 0
    for number in range(manifest.pieces):
        content = await read_piece(snapshot, number)
        digest.update(content)
        size_bytes += len(content)
        target.write(content)
    if (size_bytes, digest.digest()) != (manifest.size_bytes, manifest.sha256):
        raise Corrupt("the pieces of the snapshot are not the file that it was taken of")


async def _put(replicas: Replicas, owner: bytes, name: str, data: bytes) -> None:
    outcomes = await asyncio.gather(
        *(client.put(owner, name, data, PUT_TIMEOUT_S) for _, client in replicas), return_exceptions=True
    )
    failures: dict[int, FrostbyteError] = {}
    for (node, _), outcome in zip(replicas, outcomes, strict=True):
        if isinstance(outcome, FrostbyteError):
            failures[node.number] = outcome
        elif isinstance(outcome, BaseException):
            raise outcome
    if failures:
        raise SnapshotFailed("; ".join(map(str, failures.values())), tuple(failures))


def _count_pieces(size_bytes: int) -> int:
    return -(-size_bytes // PIECE_BYTES)


def _size_of(connection: sqlite3.Connection) -> int:
    (pages,), (page_bytes,) = (connection.execute(f"PRAGMA {it}").fetchone() for it in ("page_count", "page_size"))
    return int(pages * page_bytes)


def _free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize
