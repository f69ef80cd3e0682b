"""Random operations on the disk store and on its memory twin: what they answer is the same, to the error's type."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base.clock import ManualClock
from storage.base.errors import ChunkError, Corrupt
from storage.base.ids import ChunkId
from storage.chunks.disk import DiskChunkStore
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import InventoryEntry, Judged, OwnChunkStore
from tests.storage.chunks.conformance import chunk_id, pieces, read
from tests.storage.crash_files import CrashFiles

Operation = Callable[[OwnChunkStore], Awaitable[object]]


async def _figures(store: OwnChunkStore) -> object:
    """All but the oldest time, which the disk store knows as of its last count only."""
    return store.figures._replace(oldest_verified_ms=0)


async def _quarantine_judged(store: OwnChunkStore, ids: list[ChunkId], stored_ms: int | None = None) -> object:
    """As they are, or as if they had been stored then."""
    judged: list[Judged] = []
    for of, state in zip(ids, await store.inspect_many(ids), strict=True):
        is_other = state is not None and stored_ms is not None
        judged.append((of, msgspec.structs.replace(state, stored_ms=stored_ms) if is_other else state))
    return await store.quarantine_judged(judged)


IDS = st.builds(chunk_id, st.sampled_from([1, 2, 4095, 4096]), st.integers(0, 1))
CONTENTS = st.sampled_from([b"a", b"bb", b"other", b""])
TIMES_MS = st.integers(1_699_999_999_990, 1_700_000_000_060)
OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.builds(
        lambda of, data, more: lambda s: s.put(of, len(data) + more, pieces([data])),
        IDS,
        CONTENTS,
        st.sampled_from([0, 0, 0, 1, -1]),
    ),
    st.builds(lambda items: lambda s: s.put_many(items), st.lists(st.tuples(IDS, CONTENTS), max_size=4)),
    st.builds(
        lambda of, start, size: lambda s: read(s, of, start, size),
        IDS,
        st.integers(0, 6),
        st.none() | st.integers(0, 6),
    ),
    st.builds(
        lambda spans: lambda s: s.get_many(spans),
        st.lists(st.tuples(IDS, st.integers(0, 3), st.integers(0, 6)), max_size=4),
    ),
    st.builds(lambda of: lambda s: s.stat(of), IDS),
    st.builds(lambda of: lambda s: s.verify(of), IDS),
    st.builds(lambda ids: lambda s: s.inspect_many(ids), st.lists(IDS, max_size=3)),
    st.builds(lambda of: lambda s: s.check(of), IDS),
    st.builds(lambda: lambda s: s.count()),
    st.builds(lambda: lambda s: _figures(s)),
    st.builds(lambda ids: lambda s: s.delete_many(ids), st.lists(IDS, max_size=3)),
    st.builds(lambda ids: lambda s: s.quarantine_many(ids), st.lists(IDS, max_size=3)),
    st.builds(lambda ids: lambda s: _quarantine_judged(s, ids), st.lists(IDS, max_size=3)),
    st.builds(lambda ids, at: lambda s: _quarantine_judged(s, ids, at), st.lists(IDS, max_size=3), TIMES_MS),
    st.builds(lambda at: lambda s: s.purge_quarantine(at), TIMES_MS),
    st.builds(lambda after, limit: lambda s: s.inventory(after, limit), st.none() | IDS, st.integers(0, 9)),
)


def _plain(outcome: object) -> object:
    """Errors by their type, so that answers can be compared."""
    if isinstance(outcome, list):
        return [_plain(item) for item in outcome]
    return type(outcome) if isinstance(outcome, Exception) else outcome


def _unverified(entry: InventoryEntry) -> InventoryEntry:
    return msgspec.structs.replace(entry, verified_ms=0)


async def _answer(store: OwnChunkStore, operation: Operation) -> object:
    try:
        return _plain(await operation(store))
    except (ChunkError, Corrupt) as error:
        return type(error)


@settings(max_examples=300, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=1, max_size=25), record_bytes_max=st.sampled_from([0, 1 << 20]))
def test_disk_and_memory_answer_alike(operations: list[Operation], record_bytes_max: int) -> None:
    """In files only, and with segments. Time moves a millisecond with every operation; the power goes at the end,
    and a new disk store knows the rest."""

    async def run() -> None:
        files, clock = CrashFiles(), ManualClock()
        disk = DiskChunkStore(
            files, "/node", reserve_bytes=0, clock=clock, threads=1, record_bytes_max=record_bytes_max
        )
        memory = MemoryChunkStore(clock=clock)
        for operation in operations:
            clock.advance(0.001)
            assert await _answer(disk, operation) == await _answer(memory, operation)
        disk.close()
        again = DiskChunkStore(files.survivors(), "/node", reserve_bytes=0, clock=clock, threads=1)
        known, kept = await memory.inventory(None, 100), await again.inventory(None, 100)
        assert [_unverified(entry) for entry in kept] == [_unverified(entry) for entry in known]
        # When they were verified, nobody synced, but another chunk of the segment may have been: 0, or an earlier time.
        assert all(found.verified_ms <= entry.verified_ms for found, entry in zip(kept, known, strict=True))
        assert await again.purge_quarantine(1 << 60) == await memory.purge_quarantine(1 << 60)
        again.close()

    asyncio.run(run())
