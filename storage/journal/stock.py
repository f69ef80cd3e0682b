"""What there is of the journal, wherever it can be looked at: segments by their headers, snapshots by their manifests.

A *source* is one datanode's journal files: a running one, or the directory of one that is stopped. What cannot be read
or does not open is told and left out: other replicas count.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from storage.base.errors import ChunkError, Corrupt, FrostbyteError, JournalError, UnknownKeyId
from storage.datanode.journal_wire import (
    NO_OWNER,
    READ_BYTES_MAX,
    SEGMENT,
    JournalListing,
    parse_name,
    segment_name,
    snapshot_name,
)
from storage.journal.keys import JournalKeys
from storage.journal.record import HEADER_BYTES, SegmentHeader, SegmentSeal, parse_header, parse_incarnation
from storage.journal.snapshot_format import Manifest, SnapshotSeal

MANIFEST_BYTES_MAX = 64 * 1024
PROBLEMS_MAX = 100
"""told; more are only counted"""


class Source(Protocol):
    """The journal files of one datanode, for reading. Errors: JournalError, NodeUnreachable."""

    async def list(self) -> JournalListing: ...

    async def read(self, name: str, offset: int, length: int) -> bytes: ...


S = TypeVar("S", bound=Source)


class Replica(NamedTuple):
    """A file as one source has it."""

    source: Source
    length: int


class StoredSegment(NamedTuple):
    """A segment whose header opened."""

    seal: SegmentSeal
    replicas: tuple[Replica, ...]

    @property
    def header(self) -> SegmentHeader:
        """As its first replica that opened has it."""
        return self.seal.header


class StoredSnapshot(NamedTuple):
    """A snapshot with a manifest. pieces: of each number, who has it."""

    snapshot_id: bytes
    manifest: Manifest
    seal: SnapshotSeal
    replicas: tuple[Replica, ...]
    """of the manifest"""
    pieces: Mapping[int, tuple[Replica, ...]]

    @property
    def is_complete(self) -> bool:
        """Somebody has every piece."""
        return all(number in self.pieces for number in range(self.manifest.pieces))


class Stock(NamedTuple):
    """Everything that was found. listings: every file, readable or not."""

    segments: dict[bytes, StoredSegment]
    snapshots: dict[bytes, StoredSnapshot]
    listings: dict[Source, JournalListing]
    problems: list[str]


async def take_stock(
    listings: Mapping[Source, JournalListing], keys: JournalKeys, known: Stock | None = None, since: int = 0
) -> Stock:
    """Read the headers and manifests of what is listed. known: an earlier stock, of which nothing is read again.
    since: segments of a lower incarnation are left out."""
    stock = Stock({}, {}, dict(listings), [])
    found = _sort_files(listings)
    for segment_id, replicas in found.segments.items():
        if parse_incarnation(segment_id) < since:
            continue
        before = known.segments.get(segment_id) if known else None
        seal = before.seal if before else await _open_segment(segment_id, replicas, keys, stock.problems)
        if seal is not None:
            stock.segments[segment_id] = StoredSegment(seal, tuple(replicas))
    for snapshot_id, replicas in found.manifests.items():
        kept = known.snapshots.get(snapshot_id) if known else None
        opened = (kept.seal, kept.manifest) if kept else None
        opened = opened or await _open_snapshot(snapshot_id, replicas, keys, stock.problems)
        if opened is not None:
            pieces = {number: tuple(holders) for number, holders in found.pieces[snapshot_id].items()}
            stock.snapshots[snapshot_id] = StoredSnapshot(snapshot_id, opened[1], opened[0], tuple(replicas), pieces)
    return stock


class _Sorted(NamedTuple):
    """Who has what, by ids."""

    segments: defaultdict[bytes, list[Replica]]
    manifests: defaultdict[bytes, list[Replica]]
    pieces: defaultdict[bytes, defaultdict[int, list[Replica]]]


def _sort_files(listings: Mapping[Source, JournalListing]) -> _Sorted:
    found = _Sorted(defaultdict(list), defaultdict(list), defaultdict(lambda: defaultdict(list)))
    for source, listing in listings.items():
        for text, length in listing.files:
            name, replica = parse_name(text), Replica(source, length)
            if name.kind == SEGMENT:
                found.segments[name.file_id].append(replica)
            elif name.piece is None:
                found.manifests[name.file_id].append(replica)
            else:
                found.pieces[name.file_id][name.piece].append(replica)
    return found


def newest_owner(listings: Iterable[JournalListing]) -> bytes:
    """The highest that any of the sources knows of."""
    found = [NO_OWNER]
    for listing in listings:
        names = (parse_name(file.name) for file in listing.files)
        found += [listing.fence, *(name.file_id for name in names if name.kind == SEGMENT)]
    return max(found)


async def list_sources(sources: Iterable[S]) -> tuple[dict[S, JournalListing], dict[S, FrostbyteError]]:
    """What each has, and why the others did not say. All are asked at once."""
    asked = list(sources)
    answers = await asyncio.gather(*(source.list() for source in asked), return_exceptions=True)
    listings: dict[S, JournalListing] = {}
    failures: dict[S, FrostbyteError] = {}
    for source, answer in zip(asked, answers, strict=True):
        if isinstance(answer, FrostbyteError):
            failures[source] = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            listings[source] = answer
    return listings, failures


async def read_whole(source: Source, name: str, length: int) -> bytes:
    """A file of so many bytes, or what is left of it."""
    blocks = []
    for offset in range(0, length, READ_BYTES_MAX):
        block = await source.read(name, offset, min(READ_BYTES_MAX, length - offset))
        blocks.append(block)
        if len(block) < min(READ_BYTES_MAX, length - offset):
            break
    return b"".join(blocks)


async def read_piece(snapshot: StoredSnapshot, number: int) -> bytes:
    """What a piece of a snapshot holds, from the first replica that is whole. Corrupt when none is."""
    name = snapshot_name(snapshot.snapshot_id, number)
    reason: FrostbyteError = Corrupt(f"{name} is nowhere")
    for replica in snapshot.pieces.get(number, ()):
        try:
            return snapshot.seal.open_piece(number, await read_whole(replica.source, name, replica.length))
        except (Corrupt, JournalError, ChunkError) as error:
            reason = error
    raise Corrupt(f"no replica of {name} can be read: {reason}")


async def read_replicas(segment: StoredSegment, problems: list[str]) -> list[bytes]:
    """The whole files of a segment, the longest first. Those that cannot be read are told and left out."""
    name = segment_name(segment.header.segment_id)
    found = []
    for replica in sorted(segment.replicas, key=lambda it: it.length, reverse=True):
        try:
            found.append(await read_whole(replica.source, name, replica.length))
        except (JournalError, ChunkError) as error:
            note(problems, f"{name}: {error}")
    return found


def note(problems: list[str], text: str) -> None:
    """Add a line while there is room."""
    if len(problems) < PROBLEMS_MAX:
        problems.append(text)


async def _open_segment(
    segment_id: bytes, replicas: Sequence[Replica], keys: JournalKeys, problems: list[str]
) -> SegmentSeal | None:
    name = segment_name(segment_id)
    for replica in replicas:
        try:
            data = await replica.source.read(name, 0, HEADER_BYTES)
            header = parse_header(data)
            if header.segment_id != segment_id or header.cluster_id != keys.cluster_id:
                raise Corrupt("it is another segment, or another cluster's")
            seal = keys.segment(header)
            seal.verify_header(data)
        except (Corrupt, JournalError, ChunkError, UnknownKeyId) as error:
            note(problems, f"{name}: {error}")
        else:
            return seal
    return None


async def _open_snapshot(
    snapshot_id: bytes, replicas: Sequence[Replica], keys: JournalKeys, problems: list[str]
) -> tuple[SnapshotSeal, Manifest] | None:
    name = snapshot_name(snapshot_id)
    for replica in replicas:
        try:
            data = await read_whole(replica.source, name, min(replica.length, MANIFEST_BYTES_MAX))
            seal = keys.snapshot(snapshot_id, data)
            return seal, seal.open_manifest(data)
        except (Corrupt, JournalError, ChunkError, UnknownKeyId) as error:
            note(problems, f"{name}: {error}")
    return None
