"""One large body on its way to the datanodes: cut into chunks, up to CHUNKS_AT_ONCE_MAX of them under way.

While one chunk is being made durable the next is already sealed and sent; more at once would only hold more memory.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import NamedTuple

from cluster.body import Body
from cluster.byte_budget import ByteBudget
from cluster.chunk_sealer import ChunkSealer
from cluster.chunk_write import ChunkOrder, ChunkWrite
from cluster.chunk_writes import ChunkWrites
from cluster.cleanup import Cleanup, Place
from cluster.deadlines import Deadlines
from cluster.maintenance.pieces import NOWHERE
from cluster.nodes import NodePool
from cluster.placer import Placer
from cluster.redundancy import Redundancy
from cluster.repair_hints import RepairHints
from cluster.session import WriteSession
from cluster.stall_guard import StallGuard
from cluster.survival import SurviveMin
from storage.base.errors import ChunkTruncated, NotEnoughNodes
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.spans import chunk_span
from storage.crypto.envelope import DATA_KEY_BYTES, Cipher, Sealer, sealed_length
from storage.crypto.keyring import BucketKey, Keyring
from storage.crypto.keys import BlobKey
from storage.metadata.interface import Metadata
from storage.model import Blob, Chunk

CHUNKS_AT_ONCE_MAX = 2


class WriteSettings(NamedTuple):
    """What does not change while a gateway runs."""

    cluster_id: bytes
    redundancy: Redundancy
    """of what is written into buckets that do not say otherwise"""
    survive_min: SurviveMin = SurviveMin()
    chunk_bytes: int = 8 << 20
    inline_bytes_max: int = 16 << 10
    cipher: Cipher = Cipher.AES_256_GCM
    deadlines: Deadlines = Deadlines()


class WriteServices(NamedTuple):
    """What every write of a worker shares."""

    settings: WriteSettings
    keyring: Keyring
    session: WriteSession
    metadata: Metadata
    placer: Placer
    chunks: ChunkWrites
    cleanup: Cleanup
    hints: RepairHints
    nodes: NodePool
    budget: ByteBudget
    stalls: StallGuard
    """of whole chunks on their way to a node"""


class _ChunkUnderWay:
    """One chunk from its first byte until it is durable."""

    def __init__(self, row: Chunk, stored_id: ChunkId, sealer: ChunkSealer, write: ChunkWrite) -> None:
        self.row = row
        """as recorded; digest and nodes follow at the end"""
        self.stored_id = stored_id
        self.sealer = sealer
        self.write = write

    async def finish(self, hints: RepairHints) -> None:
        """After the last byte was sealed."""
        await self.write.finish()
        if not self.write.is_whole:
            hints.note(self.stored_id, NOWHERE, NotEnoughNodes())
        row, write = self.row, self.write
        self.row = Chunk(row.index, row.offset, row.length, row.wrapped_key, write.digest, write.nodes)
        write.discard()


class BlobWrite:
    """`send` the body, or `abort`; then `describe` says what there is, and `places` where bytes of it may be."""

    def __init__(
        self, services: WriteServices, key: BucketKey, blob_id: bytes, length: int, redundancy: Redundancy
    ) -> None:
        self._services = services
        self._redundancy = redundancy
        self._key = key
        self._blob_id = blob_id
        self._blob_key = BlobKey(key.secret, services.settings.cluster_id, blob_id)
        self._length = length
        self._begun: list[_ChunkUnderWay] = []
        self._finishing: deque[asyncio.Task[None]] = deque()

    @property
    def places(self) -> list[Place]:
        """Every node and chunk that was tried."""
        return [(number, chunk.stored_id) for chunk in self._begun for number in chunk.write.attempted]

    def describe(self) -> Blob:
        """The blob with every chunk that was begun."""
        chunks = tuple(chunk.row for chunk in self._begun)
        redundancy = str(self._redundancy)
        return Blob(self._blob_id, self._length, self._key.key_id, self._key.version, redundancy, chunks)

    async def send(self, body: Body) -> Blob:
        """All of the body, durable. ChunkTruncated (or what body.finish raises) when it is not as long as announced.

        Nothing of a blob that may be committed is deleted here, not even the piece of a node that does not count: a
        node that stalls carries a delete out late, when a repair may have named a good piece there. What no row names
        is the survey's surplus.
        """
        sent = 0
        chunk: _ChunkUnderWay | None = None
        last: _ChunkUnderWay | None = None
        async for block in body:
            sent += len(block)
            if sent > self._length:
                break
            rest = memoryview(block)
            while rest:
                if chunk is None:
                    chunk = await self._begin_chunk()
                rest = rest[await chunk.sealer.take(rest) :]
                if chunk.sealer.complete:
                    if chunk.row.offset + chunk.row.length < self._length:
                        self._finish_beside(chunk)
                    else:
                        last = chunk
                    chunk = None
        if sent != self._length:
            await body.finish()
            raise ChunkTruncated(f"{sent} bytes came where {self._length} were announced")
        if last is not None:
            await last.finish(self._services.hints)
        while self._finishing:
            await self._finishing.popleft()
        return self.describe()

    def _finish_beside(self, chunk: _ChunkUnderWay) -> None:
        self._finishing.append(asyncio.get_running_loop().create_task(chunk.finish(self._services.hints)))

    async def abort(self) -> None:
        """Stop everything and give the memory back. What was stored is the caller's to delete."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        for chunk in self._begun:
            await chunk.write.abort()
            chunk.write.discard()

    async def _begin_chunk(self) -> _ChunkUnderWay:
        while len(self._finishing) >= CHUNKS_AT_ONCE_MAX - 1:
            await self._finishing.popleft()
        services, settings = self._services, self._services.settings
        index = len(self._begun)
        span = chunk_span(self._length, index, settings.chunk_bytes)
        choice = services.placer.choose(self._blob_id, index, self._redundancy.width)
        stored_id = stored_chunk_id(self._blob_id, index)
        size = sealed_length(span.length)
        write = services.chunks.begin(ChunkOrder(stored_id, size, self._redundancy, choice, settings.survive_min))
        data_key = os.urandom(DATA_KEY_BYTES)
        sealer = Sealer(settings.cluster_id, ChunkId(self._blob_id, index), data_key, settings.cipher)
        row = Chunk(index, span.offset, span.length, self._blob_key.wrap(index, data_key), write.digest)
        chunk = _ChunkUnderWay(row, stored_id, ChunkSealer(sealer, span.length, write.log), write)
        self._begun.append(chunk)
        write.start()
        return chunk
