"""Lays out one blob anew, in another redundancy: its sealed bytes are read, and written as other pieces. No key is
needed, as seals bind neither the redundancy nor the generation.

    1. every chunk is read, verified, and written under the new generation; each piece counts by its node's receipt
    2. Relayout: the new pieces become the layout, in one transaction
    3. the old layout is released, and swept when no read can want it any more

Stopped during 1, or between 1 and 2, it leaves pieces of a generation that no row names: the survey takes them for
surplus. An attempt that fails takes its pieces back itself, unless it cannot be told whether 2 was applied. Reads go on
throughout: from the old layout before 2, from either after it.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from cluster.chunk_write import ChunkOrder
from cluster.chunk_writes import ChunkWrites
from cluster.cleanup import Cleanup, Place
from cluster.maintenance.pieces import named_pieces
from cluster.maintenance.rewrite import Rewrite, choose_sources
from cluster.maintenance.sealed_read import SealedReader, SourceFailed
from cluster.nodes import NodePool
from cluster.placer import Placer
from cluster.survival import SurviveMin
from storage.base.errors import ChunkNotFound, Corrupt, FrostbyteError, Refused, Unavailable
from storage.base.ids import stored_chunk_id
from storage.chunks.store import Buffer
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import ChunkLayout, Relayout
from storage.metadata.interface import ChunkPlace, Metadata

PAGE_CHUNKS = 64

_log = logging.getLogger(__name__)


class Superseded(Exception):
    """The blob was deleted, or laid out anew, since it was listed: there is nothing to do."""


class BlobRewriter:
    """One per job; calls may overlap, of different blobs."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        placer: Placer,
        reader: SealedReader,
        writes: ChunkWrites,
        cleanup: Cleanup,
        current_term: Callable[[], int],
    ) -> None:
        self._metadata = metadata
        self._nodes = nodes
        self._placer = placer
        self._reader = reader
        self._writes = writes
        self._cleanup = cleanup
        self._current_term = current_term

    async def rewrite(self, rewrite: Rewrite) -> int:
        """→ the sealed bytes that were laid out. The caller holds the blob's claim.

        Superseded; NotEnoughNodes, Corrupt (too few good pieces are left), Unavailable, StalePlacement: what was
        written is taken back. NotActiveMaster likewise: nobody else has this generation.
        """
        attempted: list[Place] = []
        try:
            layouts, sealed_bytes = await self._write_chunks(rewrite, attempted)
        except (FrostbyteError, Superseded):
            await self._take_back(rewrite, attempted)
            raise
        await self._commit(rewrite, layouts, attempted)
        return sealed_bytes

    async def _write_chunks(self, rewrite: Rewrite, attempted: list[Place]) -> tuple[list[ChunkLayout], int]:
        blob_id = rewrite.blob.blob_id
        layouts: list[ChunkLayout] = []
        plain_bytes = sealed_bytes = 0
        while plain_bytes < rewrite.blob.size:
            indexes = range(len(layouts), len(layouts) + PAGE_CHUNKS)
            places = await self._metadata.find_chunk_places([(blob_id, index) for index in indexes])
            for place in sorted(places, key=lambda place: place.chunk_index):
                _require_current(rewrite, place)
                layouts.append(await self._write_chunk(rewrite, place, attempted))
                plain_bytes += place.length
                sealed_bytes += sealed_length(place.length)
            if not places:
                raise Superseded
        return layouts, sealed_bytes

    async def _write_chunk(self, rewrite: Rewrite, place: ChunkPlace, attempted: list[Place]) -> ChunkLayout:
        """From other sources when some fail. A source that fails is found out before any new piece is whole."""
        failed: dict[int, SourceFailed] = {}
        while True:
            doubtful = [node for _, node in named_pieces(place) if self._nodes.is_doubtful(node)]
            sources = choose_sources(place, failed, doubtful)
            if sources is None:
                place = await self._read_again(rewrite, place, failed)
                continue
            async with aclosing(self._reader.read(place, sources)) as blocks:
                try:
                    return await self._store(rewrite, place, blocks, attempted)
                except SourceFailed as failure:
                    _log.info("chunk %d of blob %s: %s", place.chunk_index, place.blob_id.hex(), failure)
                    failed[failure.node] = failure

    async def _read_again(self, rewrite: Rewrite, place: ChunkPlace, failed: Mapping[int, SourceFailed]) -> ChunkPlace:
        """The row, if it names other nodes by now, since a repair moved the pieces."""
        for fresh in await self._metadata.find_chunk_places([(place.blob_id, place.chunk_index)]):
            _require_current(rewrite, fresh)
            if fresh.nodes != place.nodes:
                return fresh
        reasons = [failure.reason for failure in failed.values()]
        told = "; ".join(str(failure) for failure in failed.values()) or "too few pieces are recorded"
        is_lost = all(isinstance(reason, Corrupt | ChunkNotFound) for reason in reasons)
        raise (Corrupt if is_lost else Unavailable)(f"a chunk cannot be read: {told}", blob_id=place.blob_id.hex())

    async def _store(
        self, rewrite: Rewrite, place: ChunkPlace, blocks: AsyncGenerator[Buffer, None], attempted: list[Place]
    ) -> ChunkLayout:
        stored_id = stored_chunk_id(place.blob_id, place.chunk_index, rewrite.generation)
        choice = self._placer.choose(place.blob_id, place.chunk_index, rewrite.redundancy.width)
        size = sealed_length(place.length)
        write = self._writes.begin(ChunkOrder(stored_id, size, rewrite.redundancy, choice, SurviveMin()))
        try:
            write.start()
            async for block in blocks:
                await write.log.reserve(len(block))
                write.log.append(block)
            write.log.close()
            await write.finish()
            return ChunkLayout(place.chunk_index, write.digest, write.nodes)
        finally:
            await write.abort()
            write.discard()
            attempted += [(number, stored_id) for number in write.attempted]

    async def _commit(self, rewrite: Rewrite, layouts: list[ChunkLayout], attempted: list[Place]) -> None:
        blob, term = rewrite.blob, self._current_term()
        command = Relayout(
            blob.blob_id, blob.generation, str(rewrite.redundancy), tuple(layouts), term, rewrite.generation
        )
        try:
            is_applied = await self._metadata.apply(command)
        except Refused:
            # It may have been of its second delivery, as may a no.
            if not await self._is_layout(rewrite):
                await self._cleanup.delete(attempted)
                raise
        else:
            if not is_applied and not await self._is_layout(rewrite):
                await self._cleanup.delete(attempted)
                raise Superseded

    async def _take_back(self, rewrite: Rewrite, attempted: list[Place]) -> None:
        """Nothing of what another master laid out meanwhile under the very same generation: their terms may be of one
        class. Where the records do not say, the survey decides."""
        try:
            is_layout = await self._is_layout(rewrite)
        except Unavailable:
            return
        if not is_layout:
            await self._cleanup.delete(attempted)

    async def _is_layout(self, rewrite: Rewrite) -> bool:
        """Whether what was written is the blob's layout now. Unavailable: nobody knows, and nothing may be deleted."""
        places = await self._metadata.find_chunk_places([(rewrite.blob.blob_id, 0)])
        return any(place.generation == rewrite.generation for place in places)


def _require_current(rewrite: Rewrite, place: ChunkPlace) -> None:
    if place.is_released or place.generation != rewrite.blob.generation:
        raise Superseded
