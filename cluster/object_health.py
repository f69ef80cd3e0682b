"""How each chunk of one object is, asked of the nodes that should have its pieces: for `frostbyte object health`.

Chunks come one after the other, in the order of the object, and are looked at in batches: memory is bounded whatever
the object's size. A record may change while it is looked at (a repair, a move, another layout): what seems to be
missing or damaged is looked for once more where the record of now says that it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

from cluster.chunk_health import (
    ChunkHealth,
    HealthTally,
    ObjectHealth,
    PieceHealth,
    PieceState,
    assess_chunk,
    inline_chunk,
)
from cluster.maintenance.node_calls import NodeCalls
from cluster.maintenance.pieces import receipt_of, redundancy_of, stored_id_of
from cluster.nodes import Datanode, NodePool
from storage.base.errors import ChunkNotFound, Corrupt, NoSuchKey
from storage.base.ids import ChunkId
from storage.chunks.store import ChunkReceipt, ChunkState
from storage.metadata.interface import CHUNK_PAGE_ROWS, ChunkPlace, Metadata, VersionRead
from storage.model import Bucket, ClusterMap, NodeState

BATCH_CHUNKS = 64
VERIFIED_BATCH_CHUNKS = 4
"""so that something is told while media are read"""
RETRY_BATCHES = 64
"""a node that failed is left alone for so many at most"""
_CHANGED = (PieceState.MISSING, PieceState.DAMAGED)


class _Located(NamedTuple):
    """A chunk and where it begins in the object. place None: it is inline."""

    blob_id: bytes
    offset: int
    length: int
    place: ChunkPlace | None


class _Found(NamedTuple):
    """What a node says of one piece; receipt None: it has none that is right."""

    state: PieceState
    receipt: ChunkReceipt | None = None
    verified_ms: int = 0


class ObjectExamination:
    """Iterate once over it for the health of each chunk. NoSuchKey when the object is deleted meanwhile; Unavailable
    when the metadata cannot be read."""

    def __init__(
        self, metadata: Metadata, nodes: NodePool, cluster_map: ClusterMap, read: VersionRead, *, verify: bool
    ) -> None:
        self.version_id = read.version.version_id
        self.size = read.version.size
        self._metadata = metadata
        self._pool = nodes
        self._calls = NodeCalls(nodes)
        self._batches = 0
        self._nodes = {node.number: node for node in cluster_map.nodes}
        self._read = read
        self._verify = verify
        self._tally = HealthTally(self.version_id, self.size)

    @property
    def summary(self) -> ObjectHealth:
        """Of the chunks that came so far."""
        return self._tally.health

    async def __aiter__(self) -> AsyncIterator[ChunkHealth]:
        batch: list[_Located] = []
        batch_chunks = VERIFIED_BATCH_CHUNKS if self._verify else BATCH_CHUNKS
        async for located in self._locate():
            batch.append(located)
            if len(batch) == batch_chunks:
                for chunk in await self._examine(batch):
                    yield chunk
                batch.clear()
        for chunk in await self._examine(batch):
            yield chunk

    async def _locate(self) -> AsyncIterator[_Located]:
        """Every chunk, in order."""
        blobs = {blob.blob_id: blob for blob in self._read.blobs}
        for extent in self._read.extents:
            blob = blobs.get(extent.blob_id)
            if blob is None:
                continue
            if blob.inline is not None:
                yield _Located(blob.blob_id, extent.offset, extent.length, None)
                continue
            offset, after = extent.offset, (blob.blob_id, -1)
            while offset < extent.offset + extent.length:
                page = await self._metadata.list_chunk_places(after, CHUNK_PAGE_ROWS)
                places = [place for place in page if place.blob_id == blob.blob_id]
                if not places:
                    raise NoSuchKey("the object was deleted while it was looked at")
                for place in places:
                    yield _Located(blob.blob_id, offset, place.length, place)
                    offset += place.length
                after = (blob.blob_id, places[-1].chunk_index)

    async def _examine(self, batch: Sequence[_Located]) -> list[ChunkHealth]:
        self._batches += 1
        if self._batches % RETRY_BATCHES == 0:
            self._calls = NodeCalls(self._pool)
        places = [located.place for located in batch if located.place is not None]
        pieces = dict(zip(map(_key_of, places), await self._look(places), strict=True))
        suspects = [place for place in places if any(it.state in _CHANGED for it in pieces[_key_of(place)])]
        moved = await self._find_moved(suspects)
        current = {_key_of(place): place for place in [*places, *moved]}
        pieces.update(zip(map(_key_of, moved), await self._look(moved), strict=True))
        chunks: list[ChunkHealth] = []
        for located in batch:
            if located.place is None:
                chunk = inline_chunk(located.blob_id, located.offset, located.length)
            else:
                key = _key_of(located.place)
                chunk = assess_chunk(current[key], located.offset, pieces[key])
            self._tally.add(chunk)
            chunks.append(chunk)
        return chunks

    async def _find_moved(self, suspects: Sequence[ChunkPlace]) -> list[ChunkPlace]:
        """Those of the chunks that are elsewhere by now, as they are now. NoSuchKey."""
        if not suspects:
            return []
        newest = await self._metadata.find_chunk_places([_key_of(place) for place in suspects])
        if len(newest) < len(suspects):
            raise NoSuchKey("the object was deleted while it was looked at")
        known = set(suspects)
        return [place for place in newest if place._replace(is_released=False) not in known]

    async def _look(self, places: Sequence[ChunkPlace]) -> list[list[PieceHealth]]:
        """The pieces of each chunk, in the order of its record. Every node is asked once, all side by side."""
        wanted: dict[int, list[ChunkId]] = {}
        for place in places:
            for number in filter(None, place.nodes):
                wanted.setdefault(number, []).append(stored_id_of(place))
        answers = await asyncio.gather(*(self._ask(number, ids) for number, ids in wanted.items()))
        found = {
            (number, chunk_id): answer
            for (number, ids), row in zip(wanted.items(), answers, strict=True)
            for chunk_id, answer in zip(ids, row, strict=True)
        }
        return [
            [
                self._judge(place, at, number, found.get((number, stored_id_of(place))))
                for at, number in enumerate(place.nodes)
            ]
            for place in places
        ]

    def _judge(self, place: ChunkPlace, at: int, number: int, found: _Found | None) -> PieceHealth:
        position = at if redundancy_of(place).is_erasure else 0
        node = self._nodes.get(number)
        domain = node.report.failure_domain if node is not None else ""
        if found is None:
            return PieceHealth(position, number, domain, PieceState.MISSING, 0)
        state = found.state
        if state is PieceState.GOOD and found.receipt != receipt_of(place, position):
            state = PieceState.DAMAGED
        return PieceHealth(position, number, domain, state, found.verified_ms if state is PieceState.GOOD else 0)

    async def _ask(self, number: int, chunk_ids: Sequence[ChunkId]) -> list[_Found]:
        """What one node says. Pieces of a node that left are missing, those of a dead one are not asked for."""
        node = self._nodes.get(number)
        if node is None or node.state is NodeState.GONE:
            return [_Found(PieceState.MISSING)] * len(chunk_ids)
        unreachable = [_Found(PieceState.UNREACHABLE)] * len(chunk_ids)
        if node.state is NodeState.DEAD:
            return unreachable
        rotten = await self._find_rotten(number, chunk_ids) if self._verify else frozenset()
        states = await self._calls.call(number, lambda store: store.inspect_many(chunk_ids))
        if states is None:
            return unreachable
        return [
            _Found(PieceState.DAMAGED) if chunk_id in rotten else _found_of(state)
            for chunk_id, state in zip(chunk_ids, states, strict=True)
        ]

    async def _find_rotten(self, number: int, chunk_ids: Sequence[ChunkId]) -> frozenset[ChunkId]:
        """Read one after the other from the node's medium; those that are not what was stored."""
        rotten: set[ChunkId] = set()
        for chunk_id in chunk_ids:
            if await self._calls.call(number, partial(_is_rotten, chunk_id)):
                rotten.add(chunk_id)
        return frozenset(rotten)


async def examine_object(
    metadata: Metadata,
    nodes: NodePool,
    cluster_map: ClusterMap,
    bucket: Bucket,
    object_key: bytes,
    version_id: str | None = None,
    *,
    verify: bool = False,
) -> ObjectExamination:
    """Begin to examine a version (None: the current one). verify: every piece is read whole from its medium, which
    takes as long as it takes. NoSuchKey (also for a delete marker), NoSuchVersion, Unavailable."""
    read = await metadata.read_version(bucket.bucket_id, object_key, version_id)
    if read.version.is_marker:
        raise NoSuchKey("a delete marker has no body")
    return ObjectExamination(metadata, nodes, cluster_map, read, verify=verify)


def _key_of(place: ChunkPlace) -> tuple[bytes, int]:
    return place.blob_id, place.chunk_index


def _found_of(state: ChunkState | None) -> _Found:
    if state is None:
        return _Found(PieceState.MISSING)
    return _Found(PieceState.GOOD, ChunkReceipt(state.length, state.digest), state.verified_ms)


async def _is_rotten(chunk_id: ChunkId, store: Datanode) -> bool:
    try:
        await store.verify(chunk_id)
    except ChunkNotFound:
        return False
    except Corrupt:
        return True
    return False
