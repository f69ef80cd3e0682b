"""A body of one chunk that is all in memory on its way to its nodes: sealed in one go, and sent to all of them at once.

It is the short way of BlobWrite, for what most bodies are when all goes well: replicas, each of which takes its copy at
the first attempt. It knows no stand-ins and waits for no memory. Whatever else happens ends it with an error before
anything could be committed; what was stored is the caller's to delete, and the body is written again as any other.
"""

from __future__ import annotations

import asyncio
import os

from awscrt.checksums import crc64nvme

from cluster.blob_write import WriteServices, WriteSettings
from cluster.cleanup import Place
from cluster.redundancy import INLINE, Redundancy
from storage.base.errors import ChunkError, Corrupt, NodeUnreachable, NotEnoughNodes, Unavailable
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.store import DIGEST_BYTES, Buffer, ChunkReceipt
from storage.crypto.envelope import DATA_KEY_BYTES, FRAME_BYTES, Sealer, seal_single_frame, sealed_length
from storage.crypto.keyring import BucketKey
from storage.crypto.keys import wrap_first_key
from storage.model import Blob, Chunk

WHOLE_BYTES_MAX = 1 << 20
"""of plaintext: sealed it still is small enough for a datanode's segment"""


def seal_only_chunk(
    settings: WriteSettings, key: BucketKey, blob_id: bytes, plaintext: Buffer, nodes: tuple[int, ...] = ()
) -> tuple[Chunk, Buffer]:
    """All of a blob as its one chunk: the row, for `nodes`, and the sealed bytes."""
    cluster_id = settings.cluster_id
    data_key = os.urandom(DATA_KEY_BYTES)
    wrapped_key = wrap_first_key(key.secret, cluster_id, blob_id, data_key)
    sealed: Buffer
    if len(plaintext) <= FRAME_BYTES:
        sealed = seal_single_frame(cluster_id, blob_id, data_key, plaintext, settings.cipher)
    else:
        sealed = Sealer(cluster_id, ChunkId(blob_id, 0), data_key, settings.cipher).seal_whole(plaintext)
    digest = crc64nvme(sealed).to_bytes(DIGEST_BYTES, "big")
    return Chunk(0, 0, len(plaintext), wrapped_key, digest, nodes), sealed


def seal_inline(settings: WriteSettings, key: BucketKey, blob_id: bytes, plaintext: Buffer) -> Blob:
    """A blob whose sealed bytes are part of its record."""
    chunk, sealed = seal_only_chunk(settings, key, blob_id, plaintext)
    return Blob(blob_id, len(plaintext), key.key_id, key.version, INLINE, (chunk,), bytes(sealed))


class WholeWrite:
    """`send`, or `abort`; then `describe` and `places` as of a BlobWrite."""

    def __init__(
        self, services: WriteServices, key: BucketKey, blob_id: bytes, plaintext: Buffer, redundancy: Redundancy
    ) -> None:
        """plaintext: one chunk of replicas, 1 to WHOLE_BYTES_MAX bytes."""
        self._services = services
        self._key = key
        self._blob_id = blob_id
        self._stored_id = stored_chunk_id(blob_id, 0)
        self._plaintext = plaintext
        self._redundancy = redundancy
        self._attempted: list[int] = []
        self._chunks: tuple[Chunk, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def places(self) -> list[Place]:
        """Every node that was tried, with the chunk."""
        return [(number, self._stored_id) for number in self._attempted]

    def describe(self) -> Blob:
        """The blob with its chunk, once that was sealed."""
        length, key = len(self._plaintext), self._key
        return Blob(self._blob_id, length, key.key_id, key.version, str(self._redundancy), self._chunks)

    async def send(self) -> None:
        """All of it, durable and verified on every node. NotEnoughNodes, Unavailable, ChunkError, Corrupt."""
        services, length = self._services, len(self._plaintext)
        column = services.placer.begin_small(length, self._redundancy.width).column
        try:
            domains = [node.report.failure_domain for node in column]
            if not services.settings.survive_min.is_met(self._redundancy, domains):
                raise NotEnoughNodes(f"{len(domains)} replicas do not survive {services.settings.survive_min}")
            size = sealed_length(length)
            if not services.budget.try_acquire(size):
                raise Unavailable("there is no memory to write it whole")
            try:
                await self._send_to([node.number for node in column])
            finally:
                services.budget.release(size)
        finally:
            services.placer.end_small()

    async def abort(self) -> None:
        """Stop sending."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send_to(self, numbers: list[int]) -> None:
        settings = self._services.settings
        chunk, sealed = seal_only_chunk(settings, self._key, self._blob_id, self._plaintext, tuple(numbers))
        self._chunks = (chunk,)
        expected = ChunkReceipt(len(sealed), chunk.digest)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._put(number, sealed, expected)) for number in numbers[1:]]
        try:
            await self._put(numbers[0], sealed, expected)
            for task in self._tasks:
                await task
        except BaseException:
            await self.abort()
            raise

    async def _put(self, number: int, sealed: Buffer, expected: ChunkReceipt) -> None:
        nodes = self._services.nodes
        self._attempted.append(number)
        wait, is_late = self._services.stalls.begin(), False
        try:
            try:
                receipt = await nodes.put_whole(number, self._stored_id, (sealed,))
            finally:
                is_late = wait.end()
            if receipt != expected:
                raise Corrupt(f"node {number} stored other bytes than were sent", chunk_id=str(self._stored_id))
        except (asyncio.CancelledError, TimeoutError) as error:
            if isinstance(error, asyncio.CancelledError) and not is_late:
                raise
            nodes.note_failure(number)
            raise NodeUnreachable(f"node {number} did not take the chunk in time") from None
        except (ChunkError, Corrupt, Unavailable):
            nodes.note_failure(number)
            raise
        nodes.note_success(number)
