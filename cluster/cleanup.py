"""Takes back what failed writes left, beside the requests: deletes on datanodes, then a record of what could not be
deleted, for the sweeper. Whatever this misses is found by inventory once the write session is over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Iterable

import msgspec

from cluster.deadlines import Deadlines
from cluster.nodes import NodePool
from cluster.redundancy import replicated
from storage.base.errors import ChunkError, Corrupt, FrostbyteError, Refused, Unavailable
from storage.base.ids import SESSION_ID_BYTES, ChunkId
from storage.metadata.commands import ReleaseBlobs
from storage.metadata.interface import Metadata
from storage.model import Blob

RELEASE_ATTEMPTS_MAX = 4
RELEASE_RETRY_S = 1.0
LEFTOVERS = str(replicated(1))
"""how chunks are recorded of which only the places are known: fragments have their order no more"""

_log = logging.getLogger(__name__)

Place = tuple[int, ChunkId]
"""a node number and a chunk that it may hold"""


class Cleanup:
    """Jobs that go on when the request that caused them is gone. `close` waits for them."""

    def __init__(self, nodes: NodePool, metadata: Metadata, deadlines: Deadlines) -> None:
        self._nodes = nodes
        self._metadata = metadata
        self._deadlines = deadlines
        self._jobs: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()

    def start(self, job: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run a clean-up in a task of its own; the request awaits it through asyncio.shield."""
        task = asyncio.get_running_loop().create_task(job)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def delete(self, places: Iterable[Place]) -> set[Place]:
        """Delete chunks; those whose node did not say that they are gone. Never raises an error of the tree."""
        by_node: defaultdict[int, list[ChunkId]] = defaultdict(list)
        for number, chunk_id in places:
            by_node[number].append(chunk_id)
        failed = await asyncio.gather(*(self._delete_on(number, ids) for number, ids in by_node.items()))
        return {place for places in failed for place in places}

    async def take_back(self, blob: Blob, places: Iterable[Place]) -> None:
        """A write that certainly was not committed: delete its chunks, record (beside) what could not be deleted."""
        left = await self.delete(places)
        if not left:
            return
        chunks = tuple(
            msgspec.structs.replace(chunk, nodes=nodes)
            for chunk in blob.chunks
            if (nodes := tuple(number for number, chunk_id in left if chunk_id.chunk_index == chunk.index))
        )
        self.start_releasing(msgspec.structs.replace(blob, redundancy=LEFTOVERS, chunks=chunks))

    def start_releasing(self, blob: Blob) -> None:
        """Record a blob as released unless it was committed, trying for a while; no request waits for this. Safe where
        the outcome of a commit is not known: if it was applied the record is ignored, and if it comes later it is
        refused."""
        self.start(self._release(blob))

    async def _release(self, blob: Blob) -> None:
        command = ReleaseBlobs(blob.blob_id[:SESSION_ID_BYTES], (blob,))
        for attempt in range(RELEASE_ATTEMPTS_MAX):
            try:
                async with asyncio.timeout(self._deadlines.metadata_s):
                    await self._metadata.apply(command)
                return
            except Refused as error:
                _log.info("blob %s is left to the sweeper: %s", blob.blob_id.hex(), error)
                return
            except (FrostbyteError, TimeoutError):
                await self._pause(RELEASE_RETRY_S * 2**attempt)
        _log.warning("blob %s could not be recorded as released; the sweeper finds its chunks", blob.blob_id.hex())

    async def close(self) -> None:
        """Wait until every job is done; none of them pauses any more."""
        self._closing.set()
        while self._jobs:
            await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        """Before another try; over at once when everything is being closed."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return

    async def _delete_on(self, number: int, chunk_ids: list[ChunkId]) -> list[Place]:
        try:
            async with asyncio.timeout(self._deadlines.clean_up_s):
                await self._nodes.store(number).delete_many(chunk_ids)
        except (ChunkError, Corrupt, Unavailable, TimeoutError) as error:
            _log.info("%d chunks of a failed write stay on node %d for now: %s", len(chunk_ids), number, error)
            return [(number, chunk_id) for chunk_id in chunk_ids]
        return []
