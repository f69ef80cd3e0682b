"""Fetches spans of sealed chunks from their replicas and opens them: one replica at a time, the next one when it is
missing, damaged or late. What comes out was verified; nothing is handed out before its frames have opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple

from cluster.deadlines import Deadlines
from cluster.nodes import NodePool
from cluster.repair_hints import RepairHints
from storage.base.errors import ChunkError, ChunkNotFound, Corrupt, FrostbyteError, NodeUnreachable, Unavailable
from storage.base.ids import ChunkId
from storage.crypto.customer import CustomerKey, mix_customer_key
from storage.crypto.envelope import FRAME_BYTES, Buffer, Cipher, Opener, open_whole
from storage.crypto.frame_reader import FrameReader
from storage.crypto.keyring import Keyring
from storage.crypto.keys import BlobKey
from storage.metadata.interface import Metadata
from storage.model import Blob, Chunk


class ChunkSlice(NamedTuple):
    """The plaintext [start, end) of one chunk, counted inside the chunk."""

    blob: Blob
    chunk: Chunk
    start: int
    end: int

    @property
    def chunk_id(self) -> ChunkId:
        """As datanodes know it."""
        return ChunkId(self.blob.blob_id, self.chunk.index)

    def cut(self, frames_max: int) -> tuple[ChunkSlice, ChunkSlice | None]:
        """(a slice that ends with the frames_max-th frame at the latest, the rest)."""
        end = (self.start // FRAME_BYTES + frames_max) * FRAME_BYTES
        if end >= self.end:
            return self, None
        return self._replace(end=end), self._replace(start=end)


class ChunkReader:
    """One per worker."""

    def __init__(
        self,
        cluster_id: bytes,
        cipher: Cipher,
        keyring: Keyring,
        metadata: Metadata,
        nodes: NodePool,
        hints: RepairHints,
        deadlines: Deadlines,
    ) -> None:
        self._cluster_id = cluster_id
        self._cipher = cipher
        self._keyring = keyring
        self._metadata = metadata
        self._nodes = nodes
        self._hints = hints
        self._deadlines = deadlines

    def opener(self, blob: Blob, chunk: Chunk, customer_key: CustomerKey | None = None) -> Opener:
        """For the frames of one chunk. SealBroken (also for another customer's key, or none), UnknownKeyId."""
        bucket_key = self._keyring.bucket_key(blob.bucket_key_id, blob.bucket_key_version)
        if customer_key is not None:
            bucket_key = mix_customer_key(bucket_key, self._cluster_id, customer_key)
        data_key = BlobKey(bucket_key, self._cluster_id, blob.blob_id).unwrap(chunk.index, chunk.wrapped_key)
        return Opener(self._cluster_id, ChunkId(blob.blob_id, chunk.index), data_key, self._cipher)

    def open_inline(self, blob: Blob, start: int, end: int, customer_key: CustomerKey | None = None) -> Buffer:
        """The plaintext [start, end) of an inline blob, which is opened whole. Corrupt, SealBroken."""
        if blob.inline is None or len(blob.chunks) != 1:
            raise Corrupt("an inline blob has one chunk and its bytes", blob_id=blob.blob_id.hex())
        plaintext = open_whole(self.opener(blob, blob.chunks[0], customer_key), blob.inline)
        if len(plaintext) != blob.size or end > blob.size:
            raise Corrupt(f"an inline blob of {len(plaintext)} bytes does not match its record")
        return plaintext if end - start == blob.size else memoryview(plaintext)[start:end]

    async def fetch(self, opener: Opener, piece: ChunkSlice) -> Buffer:
        """The plaintext of a slice. Corrupt when every replica is missing or damaged, Unavailable when one that cannot
        be reached may still have it."""
        tried: set[int] = set()
        failures: list[FrostbyteError] = []
        nodes = piece.chunk.nodes
        while True:
            for number in self._nodes.order_for_read([it for it in nodes if it not in tried]):
                tried.add(number)
                try:
                    return await self._fetch_from(number, opener, piece)
                except (ChunkError, Corrupt, Unavailable) as error:
                    failures.append(error)
                    self._nodes.note_failure(number)
                    self._hints.note(piece.chunk_id, number, error)
            # The row may be older than a move of its replicas.
            rows = await self._metadata.read_chunks(piece.blob.blob_id, piece.chunk.index, 1)
            nodes = rows[0].nodes if rows and rows[0].index == piece.chunk.index else ()
            if tried.issuperset(nodes):
                break
        told = "; ".join(str(error) for error in failures[:4]) or "no replica is recorded"
        if all(isinstance(error, Corrupt | ChunkNotFound) for error in failures):
            raise Corrupt(f"no good replica of a chunk is left: {told}", chunk_id=str(piece.chunk_id))
        raise Unavailable(f"no replica of a chunk can be read now: {told}", chunk_id=str(piece.chunk_id))

    async def _fetch_from(self, number: int, opener: Opener, piece: ChunkSlice) -> Buffer:
        reader = FrameReader(opener, piece.start, piece.end, piece.chunk.length)
        span = reader.span
        opened: list[Buffer] = []
        sealed = self._nodes.store(number).get(piece.chunk_id, span.offset, span.length)
        try:
            async with asyncio.timeout(self._deadlines.first_byte_s) as timeout:
                async for block in sealed:
                    timeout.reschedule(asyncio.get_running_loop().time() + self._deadlines.read_stall_s)
                    plaintext = reader.feed(block)
                    if plaintext:
                        opened.append(plaintext)
        except TimeoutError:
            raise NodeUnreachable(f"node {number} sent nothing in time") from None
        finally:
            if isinstance(sealed, AsyncGenerator):
                await sealed.aclose()
        reader.finish()
        self._nodes.note_success(number)
        return opened[0] if len(opened) == 1 else b"".join(opened)
