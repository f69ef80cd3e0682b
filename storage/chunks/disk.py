"""DiskChunkStore: the ChunkStore over one directory of a medium. One process owns the directory.

The event loop gathers blocks and worker threads do what blocks: about one hop for every HOP_BYTES, so while one
megabyte of a large chunk is written the next one is gathered; small chunks are gathered whole and made durable several
in one hop (small_puts.py). In memory are at most two such batches for each large put, GATHERED_BYTES_MAX of small ones,
and two blocks for each get.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any, Self, TypeVar

from storage.base.clock import Clock, SystemClock
from storage.base.errors import ChunkError, Corrupt, Unavailable
from storage.base.files import AnyPath, FileSystem
from storage.base.ids import ChunkId
from storage.base.settling import abandon
from storage.chunks.body import gather_body, hand_over_body
from storage.chunks.chunk_directory import ChunkDirectory
from storage.chunks.chunk_reading import ChunkReading
from storage.chunks.lent_draft import LentDraft
from storage.chunks.lent_range import Ending, LentRange
from storage.chunks.lent_ranges import Loan
from storage.chunks.room import Room, Share
from storage.chunks.segment_format import RECORD_BYTES_MAX
from storage.chunks.small_puts import BATCHES_AT_ONCE, SMALL_BYTES_MAX, SmallPuts
from storage.chunks.store import (
    BATCH_BYTES_MAX,
    INVENTORY_ENTRIES_MAX,
    Buffer,
    ChunkReceipt,
    ChunkState,
    Figures,
    InventoryEntry,
    Judged,
    Space,
)
from storage.chunks.worker_pool import WorkerPool

HOP_BYTES = 1 << 20
HOP_ITEMS = 64
"""chunks of one hop of a batch: those that need files have them open at once"""
WORKER_THREADS = 6
"""beside those of small puts"""
COUNTED_AT_ONCE = 1000
RANGES_SPARE = 16
"""so many must there be room for where one is lent: what is promised to a borrower is nobody else's"""
GATHERED_BYTES_MAX = 256 << 20
"""of small chunks that are held until they are durable: more are refused before their first byte"""

_T = TypeVar("_T")
_Future = asyncio.Future[Any]


class DiskChunkStore:
    """See OwnChunkStore for what the methods promise. Used from one event loop; closed once."""

    def __init__(
        self,
        files: FileSystem,
        directory: AnyPath,
        *,
        reserve_bytes: int,
        clock: Clock | None = None,
        threads: int = WORKER_THREADS,
        record_bytes_max: int = RECORD_BYTES_MAX,
    ) -> None:
        """Blocking: makes the directory what it must be and removes what an earlier process left half-written.

        Unavailable when another process holds the directory. reserve_bytes: free space that no put may touch.
        record_bytes_max: of a chunk that is to lie in a segment, RECORD_BYTES_MAX at most.
        """
        clock = clock or SystemClock()
        self._directory = ChunkDirectory(files, directory, clock, record_bytes_max)
        self._room = Room(lambda: self._directory.space().free_bytes, reserve_bytes, clock)
        self._reserve_bytes = reserve_bytes
        self._pool = WorkerPool(threads, "chunks")
        self._batches_pool = WorkerPool(min(threads, BATCHES_AT_ONCE), "batches")
        self.small_puts = SmallPuts(self._directory, self._batches_pool)
        self.gathered_bytes = 0
        """of small chunks that come or wait; kept by DiskPut"""
        self._small_bytes_max = max(record_bytes_max, SMALL_BYTES_MAX)

    def close(self) -> None:
        """Finish what was begun and let go of the directory. Blocking, for the end of a process."""
        self._pool.close()
        self._batches_pool.close()
        self._directory.close()

    # --- put

    async def put(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        if length <= self._small_bytes_max:
            with self.begin_whole(chunk_id, length) as put:
                return await put.store(await gather_body(body, length))
        with self._room.take(length):
            return await self._put_large(chunk_id, length, body)

    async def put_whole(self, chunk_id: ChunkId, blocks: Sequence[Buffer]) -> ChunkReceipt:
        with self.begin_whole(chunk_id, sum(map(len, blocks))) as put:
            return await put.store(blocks)

    def begin_whole(self, chunk_id: ChunkId, length: int) -> DiskPut:
        share = self._room.take(length)
        if self.gathered_bytes + length > GATHERED_BYTES_MAX:
            share.close()
            raise Unavailable("the disk has too many bytes waiting")
        return DiskPut(self, chunk_id, length, share)

    async def _put_large(self, chunk_id: ChunkId, length: int, body: AsyncIterator[Buffer]) -> ChunkReceipt:
        draft = self._directory.draft(chunk_id, length)
        try:
            last = await hand_over_body(
                body, length, HOP_BYTES, lambda batch: self._pool.run(self._directory.append, draft, batch)
            )
            return await self._pool.run(self._directory.store, draft, last)
        except BaseException:
            await self._finally(draft.discard)
            raise

    @asynccontextmanager
    async def lend(self, chunk_id: ChunkId, token: str, length: int) -> AsyncIterator[LentDraft]:
        """A draft, with its room taken, that another process of this machine fills within this context, and that
        `accept` makes a chunk; it is removed otherwise. NodeFull, ChunkError."""
        with self._room.take(length):
            draft = self._directory.lent_draft(chunk_id, token, length)
            try:
                await self._pool.run(self._directory.make, draft)
                yield draft
            finally:
                if not draft.is_over:
                    await self._finally(draft.discard)

    async def accept(self, draft: LentDraft, receipt: ChunkReceipt) -> ChunkReceipt:
        """Make a lent draft a durable chunk. receipt: of its bytes, by who wrote them. Errors as `put`."""
        return await self._pool.run(self._directory.accept, draft, receipt)

    @asynccontextmanager
    async def lend_range(self, group: str, length: int) -> AsyncIterator[BorrowedRange]:
        """A range of a group's segment, with its room taken, that another process of this machine writes small chunks
        into within this context. Where its `ending` is not set by then it counts as lost. NodeFull, also where there
        would be little left for others; ChunkError."""
        self._room.take(RANGES_SPARE * length).close()
        with self._room.take(length):
            ranges = self._directory.lent_ranges
            lending = self._pool.run(ranges.lend, group, length)
            try:
                loan = await asyncio.shield(lending)
            except asyncio.CancelledError:
                lending.add_done_callback(self._end_unused)
                raise
            borrowed = BorrowedRange(loan.lent)
            try:
                yield borrowed
            finally:
                await self._finally(lambda: ranges.end(loan, borrowed.ending))

    def _end_unused(self, lending: asyncio.Future[Loan]) -> None:
        if not lending.cancelled() and lending.exception() is None:
            with suppress(Unavailable):  # at the end of a process
                self._pool.run(self._directory.lent_ranges.end, lending.result(), Ending())

    async def put_many(self, items: Sequence[tuple[ChunkId, Buffer]]) -> list[ChunkReceipt | ChunkError]:
        outcomes: list[ChunkReceipt | ChunkError] = []
        for batch in _batches(items, lambda item: len(item[1])):
            admitted: list[tuple[ChunkId, Sequence[Buffer]]] = []
            refusals: dict[int, ChunkError] = {}
            with ExitStack() as shares:
                for number, (chunk_id, data) in enumerate(batch):
                    try:
                        shares.enter_context(self._room.take(len(data)))
                        admitted.append((chunk_id, [data]))
                    except ChunkError as error:
                        refusals[number] = error
                stored = iter(await self._pool.run(self._directory.store_many, admitted) if admitted else ())
            outcomes.extend(refusals.get(number) or next(stored) for number in range(len(batch)))
        return outcomes

    # --- get

    async def get(self, chunk_id: ChunkId, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        reading = ChunkReading(self._directory, chunk_id, offset, length, HOP_BYTES)
        ahead: _Future | None = None
        try:
            block = await self._pool.run(reading.next_block)
            while block:
                ahead = None if reading.is_over else self._pool.run(reading.next_block)
                yield block
                block = b"" if ahead is None else await ahead
        finally:
            if not reading.is_over:
                abandon(ahead)
                await self._finally(reading.close)

    async def get_many(self, spans: Sequence[tuple[ChunkId, int, int]]) -> list[bytes | ChunkError | Corrupt]:
        outcomes: list[bytes | ChunkError | Corrupt] = []
        room = BATCH_BYTES_MAX
        for batch in _batches(spans, lambda span: span[2]):
            within = []
            for span in batch:
                room -= span[2]
                if room < 0:
                    break
                within.append(span)
            outcomes.extend(await self._pool.run(self._directory.read_spans, within) if within else ())
            outcomes.extend(ChunkError("too many bytes in one call") for _ in batch[len(within) :])
        return outcomes

    async def stat(self, chunk_id: ChunkId) -> ChunkReceipt:
        return await self._pool.run(self._directory.stat, chunk_id)

    async def verify(self, chunk_id: ChunkId) -> ChunkReceipt:
        return await self._pool.run(self._directory.verify, chunk_id)

    async def inspect_many(self, chunk_ids: Sequence[ChunkId]) -> list[ChunkState | None]:
        found: list[ChunkState | None] = []
        for batch in _batches(chunk_ids, lambda _: 0):
            found += await self._pool.run(self._directory.inspect, batch)
        return found

    # --- what a datanode asks of its own store

    @property
    def figures(self) -> Figures:
        return self._directory.tally.figures._replace(damaged_count=self._directory.quarantined.damaged_count)

    async def count(self) -> Figures:
        loop = asyncio.get_running_loop()
        self._directory.tally.begin_count()
        after: ChunkId | None = None
        began_s = loop.time()
        while page := await self.inventory(after, COUNTED_AT_ONCE):
            after = self._directory.tally.count(page)
            await asyncio.sleep(loop.time() - began_s)
            began_s = loop.time()
        self._directory.tally.end_count()
        return self.figures

    async def probe(self) -> None:
        await self._pool.run(self._directory.probe)

    async def check(self, chunk_id: ChunkId) -> bool:
        return await self._pool.run(self._directory.check, chunk_id)

    async def list_damaged(self, after: ChunkId | None, limit: int) -> list[tuple[ChunkId, int]]:
        listed = await self._pool.run(self._directory.list_damaged, after, min(limit, INVENTORY_ENTRIES_MAX))
        return [(found.chunk_id, found.set_aside_ms) for found in listed]

    async def forget_damaged(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        return await self._pool.run(self._directory.quarantined.forget_damaged, chunk_ids)

    # --- the rest

    async def delete_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        outcomes: list[bool] = []
        for batch in _batches(chunk_ids, lambda _: 0):
            outcomes += await self._pool.run(self._directory.delete, batch)
        return outcomes

    async def quarantine_many(self, chunk_ids: Sequence[ChunkId]) -> list[bool]:
        outcomes: list[bool] = []
        for batch in _batches(chunk_ids, lambda _: 0):
            outcomes += await self._pool.run(self._directory.quarantine, batch)
        return outcomes

    async def quarantine_judged(self, judged: Sequence[Judged]) -> list[bool]:
        outcomes: list[bool] = []
        for batch in _batches(judged, lambda _: 0):
            outcomes += await self._pool.run(self._directory.quarantine_judged, batch)
        return outcomes

    async def purge_quarantine(self, older_than_ms: int) -> int:
        """Also the time to remove directories and segments whose chunks are all gone."""
        purged = 0
        while removed := await self._pool.run(self._directory.quarantined.purge, older_than_ms, HOP_ITEMS):
            purged += removed
        await self._pool.run(self._directory.prune)
        return purged

    async def inventory(self, after: ChunkId | None, limit: int) -> list[InventoryEntry]:
        return await self._pool.run(self._directory.read_inventory, after, limit)

    async def space(self) -> Space:
        found = await self._pool.run(self._directory.space)
        return Space(found.capacity_bytes, found.free_bytes, self._reserve_bytes)

    async def _finally(self, step: Callable[[], None]) -> None:
        """A last step that must happen though the caller is being cancelled or the pool is closed."""
        try:
            await self._pool.run(step)
        except Unavailable:
            step()


class BorrowedRange:
    """A range while it is lent."""

    def __init__(self, lent: LentRange) -> None:
        self.lent = lent
        self.ending: Ending | None = None
        """as the borrower said"""


class DiskPut:
    """WholePut of a disk."""

    __slots__ = ("_chunk_id", "_length", "_share", "_store")

    def __init__(self, store: DiskChunkStore, chunk_id: ChunkId, length: int, share: Share) -> None:
        store.gathered_bytes += length
        self._store = store
        self._chunk_id = chunk_id
        self._length = length
        self._share = share

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def store(self, blocks: Sequence[Buffer]) -> asyncio.Future[ChunkReceipt]:
        return self._store.small_puts.put(self._chunk_id, blocks)

    def close(self) -> None:
        self._store.gathered_bytes -= self._length
        self._length = 0
        self._share.close()


def _batches(items: Sequence[_T], size_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """Consecutive items, HOP_ITEMS or about HOP_BYTES of them at a time."""
    batch: list[_T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += size_of(item)
        if len(batch) >= HOP_ITEMS or size >= HOP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
