"""The power goes before every single step of a store's life; what is left must keep every answer that was given.

So it is where each chunk has a file of its own, and where small ones lie in segments. A script of operations runs over
the crash twin and is cut before step 0, 1, 2 … to its end. After each cut a new store opens what survived (nothing
unsynced; all names; several random selections with torn writes) and is held against what the old one had answered: an
acknowledged put is whole, an acknowledged delete or quarantine is not undone, whatever is listed or readable at all
verifies, and no leftover stays.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.base.errors import ChunkNotFound, Corrupt
from storage.base.ids import ChunkId, chunk_id_from_bytes
from storage.chunks import segment
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import FOOTER_BYTES, digest_of
from storage.chunks.layout import lent_draft_name
from storage.chunks.lent_range import LentRange
from storage.chunks.near_range import NearRange, NewBody
from storage.chunks.quarantine import Quarantine
from storage.chunks.records import Records
from storage.chunks.segment import Segment
from storage.chunks.segment_format import RECORD_BYTES_MAX, Slot
from storage.chunks.store import ChunkReceipt
from tests.storage.chunks.borrowers import borrowing, write_chained
from tests.storage.chunks.chunk_files import FILES_ONLY
from tests.storage.chunks.conformance import chunk_id, cut, put, read, some_bytes
from tests.storage.crash_files import CrashFiles, PowerCut, _Handle

DIRECTORY = "/data/node"
SEEDS = range(4)
STEPS_MAX = 1_000
STRIDE = 3
LARGE, SMALL, OTHER_GROUP, FIRST, SECOND, THIRD, LENT = (chunk_id(n) for n in (1, 2, 9000, 10, 11, 12, 13))
BORROWED = [chunk_id(n) for n in range(20, 26)]
TOKEN = "ab" * 16
Script = Callable[[CrashFiles, "Ledger", int], Awaitable[None]]
"""of operations over a medium; the last is record_bytes_max"""
CONTENTS = {
    LARGE: some_bytes((1 << 20) + 5000),
    LENT: some_bytes((1 << 20) + 7000, seed=9),
    **{of: some_bytes(3000 + 1500 * n, seed=20 + n) for n, of in enumerate(BORROWED)},
    **{of: some_bytes(1000 + n, seed=n) for n, of in enumerate((SMALL, OTHER_GROUP, FIRST, SECOND, THIRD))},
}


class Ledger:
    """What the store has answered for. A chunk whose operation was cut short is in none of the three."""

    def __init__(self) -> None:
        self.there: set[ChunkId] = set()
        self.gone: set[ChunkId] = set()
        self.set_aside: set[ChunkId] = set()
        self.named: set[ChunkId] = set()
        """whatever was ever put"""

    def begin(self, *ids: ChunkId) -> None:
        """These may come out either way from here on, but for what is only said again."""
        for of in ids:
            self.named.add(of)
            self.there.discard(of)
            self.gone.discard(of)


async def put_one(store: DiskChunkStore, ledger: Ledger, of: ChunkId) -> None:
    """Acknowledged when it returns. A repeated put puts nothing at risk."""
    if of not in ledger.there:
        ledger.begin(of)
    await put(store, of, CONTENTS[of])
    ledger.there.add(of)


async def put_lent(store: DiskChunkStore, files: CrashFiles, ledger: Ledger, of: ChunkId) -> None:
    """Its bytes written by another process, in two steps."""
    ledger.begin(of)
    data = CONTENTS[of]
    async with store.lend(of, TOKEN, len(data)) as draft:
        with files.open(f"{DIRECTORY}/tmp/{lent_draft_name(of, TOKEN)}", writable=True) as file:
            file.pwrite(data[:900_000], 0)
            file.pwrite(data[900_000:], 900_000)
        assert await store.accept(draft, digest_of(data)) == digest_of(data)
    ledger.there.add(of)


async def put_borrowed(
    store: DiskChunkStore, files: CrashFiles, ledger: Ledger, *batches: Sequence[ChunkId], is_lost: bool = False
) -> None:
    """By another process, straight into a range of a segment; between them others by the store itself. is_lost: the
    borrower says nothing at its end."""
    async with borrowing(store, Path(DIRECTORY), batches[0][0], files, ManualClock(), length=64 << 10) as borrower:
        for batch, of in zip(batches, (THIRD, FIRST, SECOND), strict=False):
            ledger.begin(*batch)
            borrower.put(*[(each, CONTENTS[each]) for each in batch])
            ledger.there.update(batch)
            await put_one(store, ledger, of)
        if is_lost:
            borrower.ending = None


async def put_some(store: DiskChunkStore, ledger: Ledger, *ids: ChunkId) -> None:
    """One call for all."""
    ledger.begin(*ids)
    outcomes = await store.put_many([(of, CONTENTS[of]) for of in ids])
    assert outcomes == [digest_of(CONTENTS[of]) for of in ids]
    ledger.there.update(ids)


async def put_beside(store: DiskChunkStore, ledger: Ledger, *ids: ChunkId) -> None:
    """Each in a call of its own, all at once: the last of them share a batch."""
    outcomes = await asyncio.gather(*[put_one(store, ledger, of) for of in ids], return_exceptions=True)
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


async def delete(store: DiskChunkStore, ledger: Ledger, *ids: ChunkId) -> None:
    """One call for all, present or not."""
    ledger.begin(*ids)
    await store.delete_many(ids)
    ledger.gone.update(ids)


async def quarantine(store: DiskChunkStore, ledger: Ledger, *ids: ChunkId) -> None:
    """One call for all; they must exist."""
    ledger.begin(*ids)
    assert await store.quarantine_many(ids) == [True] * len(ids)
    ledger.gone.update(ids)
    ledger.set_aside.update(ids)


async def quarantine_judged(store: DiskChunkStore, ledger: Ledger, *ids: ChunkId) -> None:
    """One call for all; they must exist."""
    ledger.begin(*ids)
    judged = list(zip(ids, await store.inspect_many(ids), strict=True))
    assert await store.quarantine_judged(judged) == [True] * len(ids)
    ledger.gone.update(ids)
    ledger.set_aside.update(ids)


async def purge(store: DiskChunkStore, ledger: Ledger) -> None:
    """All of the quarantine."""
    ledger.set_aside.clear()
    await store.purge_quarantine(1 << 60)


def open_store(files: CrashFiles, record_bytes_max: int) -> DiskChunkStore:
    """Whose steps come one after the other."""
    clock = ManualClock()
    return DiskChunkStore(files, DIRECTORY, reserve_bytes=0, clock=clock, threads=1, record_bytes_max=record_bytes_max)


async def script(files: CrashFiles, ledger: Ledger, record_bytes_max: int) -> None:
    """Everything a store does, from an empty medium on, with one restart in the middle."""
    store = open_store(files, record_bytes_max)
    try:
        await put_one(store, ledger, LARGE)
        await put_one(store, ledger, SMALL)
        await put_lent(store, files, ledger, LENT)
        await put_one(store, ledger, LARGE)
        await put_some(store, ledger, FIRST, SECOND, THIRD, OTHER_GROUP)
        await quarantine(store, ledger, SMALL, SECOND)
        await delete(store, ledger, FIRST, LARGE, OTHER_GROUP, LENT)
        await put_one(store, ledger, LARGE)
        await put_lent(store, files, ledger, LENT)
    finally:
        store.close()
    store = open_store(files, record_bytes_max)
    try:
        await put_one(store, ledger, SMALL)
        await purge(store, ledger)
        await put_one(store, ledger, OTHER_GROUP)
        await put_beside(store, ledger, SMALL, THIRD, FIRST, SECOND)
        await delete(store, ledger, SMALL, FIRST)
        await quarantine_judged(store, ledger, SECOND, LENT)
    finally:
        store.close()


async def lending_script(files: CrashFiles, ledger: Ledger, record_bytes_max: int) -> None:
    """What is about ranges, with one restart in the middle."""
    store = open_store(files, record_bytes_max)
    try:
        await put_one(store, ledger, SMALL)
        await put_borrowed(store, files, ledger, BORROWED[:2], BORROWED[2:3])
        await quarantine(store, ledger, BORROWED[1])
    finally:
        store.close()
    store = open_store(files, record_bytes_max)
    try:
        await delete(store, ledger, BORROWED[0], SMALL)
        await put_borrowed(store, files, ledger, BORROWED[3:4], is_lost=True)
        await purge(store, ledger)
        await put_borrowed(store, files, ledger, BORROWED[4:])
        await put_one(store, ledger, SECOND)
    finally:
        store.close()


async def check(survivors: CrashFiles, ledger: Ledger) -> None:
    """Open what survived, and hold it against the ledger."""
    store = DiskChunkStore(survivors, DIRECTORY, reserve_bytes=0, threads=1)
    try:
        assert list(survivors.list_directory(f"{DIRECTORY}/tmp")) == []
        listed = {chunk_id_from_bytes(entry.chunk_id) for entry in await store.inventory(None, 100)}
        assert ledger.there <= listed
        assert not ledger.gone & listed
        for of in listed:
            assert await store.verify(of) == digest_of(CONTENTS[of])
            assert await read(store, of) == CONTENTS[of]
        for of in ledger.gone:
            with pytest.raises(ChunkNotFound):
                await store.stat(of)
        aside = dict(set_aside(survivors))
        assert ledger.set_aside <= set(aside)
        assert all(aside[of][:-FOOTER_BYTES] == CONTENTS[of] for of in aside)
        for of in [of for of in CONTENTS if of in ledger.named]:
            await put(store, of, CONTENTS[of])
    finally:
        store.close()
        survivors.forget()


def set_aside(files: CrashFiles) -> Iterator[tuple[ChunkId, bytes]]:
    """The quarantine as it is on the medium."""
    for name in files.list_directory(f"{DIRECTORY}/quarantine"):
        with files.open(f"{DIRECTORY}/quarantine/{name}") as file:
            yield chunk_id_from_bytes(bytes.fromhex(name[:40])), file.pread(file.size(), 0)


async def cut_at(step: int, make: Callable[[], CrashFiles], record_bytes_max: int, script: Script) -> bool:
    """Whether the script has that step."""
    files, ledger = make(), Ledger()
    files.cut_before(step)
    try:
        await script(files, ledger, record_bytes_max)
    except PowerCut:
        await check(files.survivors(), ledger)
        await check(files.survivors(names=True), ledger)
        for seed in SEEDS:
            await check(files.survivors(seed=step * len(SEEDS) + seed), ledger)
        return True
    finally:
        files.forget()
    return False


async def cut_everywhere(make: Callable[[], CrashFiles], record_bytes_max: int, script: Script = script) -> int:
    """Run a script once for each of its steps; how many there were."""
    for step in range(STEPS_MAX):
        if not await cut_at(step, make, record_bytes_max, script):
            return step
    pytest.fail("the script never ends")


async def look_for_a_cut(make: Callable[[], CrashFiles], record_bytes_max: int, script: Script = script) -> None:
    """The same steps, in an order that soon comes to one at which it is noticed what is wrong from some step on."""
    for first in range(STRIDE):
        for step in range(first, STEPS_MAX, STRIDE):
            if not await cut_at(step, make, record_bytes_max, script):
                break


@pytest.mark.parametrize(
    ("record_bytes_max", "behind_bytes_max"), [(FILES_ONLY, 0), (RECORD_BYTES_MAX, 0), (RECORD_BYTES_MAX, 1 << 20)]
)
async def test_a_cut_before_every_step(
    monkeypatch: pytest.MonkeyPatch, record_bytes_max: int, behind_bytes_max: int
) -> None:
    """Of start, put, put_many, puts in one batch, a lent draft, quarantine, delete, restart and purge; at least those
    we know of. behind_bytes_max: of a segment's mark."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", behind_bytes_max)
    assert await cut_everywhere(CrashFiles, record_bytes_max) > 60


@pytest.mark.parametrize("way", [NearRange.write, write_chained])
@pytest.mark.parametrize("behind_bytes_max", [0, 1 << 20])
async def test_a_cut_before_every_step_of_loans(
    monkeypatch: pytest.MonkeyPatch, behind_bytes_max: int, way: Callable[..., list[ChunkReceipt]]
) -> None:
    """Of chunks that another process writes, in a store that goes on meanwhile."""
    monkeypatch.setattr(NearRange, "write", way)
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", behind_bytes_max)
    assert await cut_everywhere(CrashFiles, RECORD_BYTES_MAX, lending_script) > 50


class NoDirectorySync(CrashFiles):
    """A twin of a store that forgot to sync its names."""

    def fsync_directory(self, path: object) -> None:
        if not str(path).startswith(DIRECTORY + "/chunks/"):
            super().fsync_directory(str(path))


class NoQuarantineSync(CrashFiles):
    """A twin of a store that forgot to sync where it set chunks aside."""

    def fsync_directory(self, path: object) -> None:
        if str(path) != DIRECTORY + "/quarantine":
            super().fsync_directory(str(path))


class NoBytesSync(CrashFiles):
    """A twin of a store that forgot to sync its bytes."""

    def sync_file(self, verb: str, path: str, file: object) -> None:
        self._step(f"{verb} {path}")


class RenameFirst(CrashFiles):
    """A twin of a store that gives a chunk its name before its bytes are durable."""

    def sync_file(self, verb: str, path: str, file: object) -> None:
        self._late = getattr(self, "_late", [])
        self._late.append((verb, path, file))

    def fsync_directory(self, path: object) -> None:
        for late in getattr(self, "_late", []):
            super().sync_file(*late)
        self._late = []
        super().fsync_directory(str(path))


@pytest.mark.parametrize("broken", [NoDirectorySync, NoQuarantineSync, NoBytesSync, RenameFirst])
async def test_the_check_notices_a_forgotten_sync(broken: type[CrashFiles]) -> None:
    """Each of the syncs is needed: without it some cut takes a chunk, brings one back or leaves a damaged one."""
    with pytest.raises((AssertionError, Corrupt)):
        await look_for_a_cut(broken, FILES_ONLY)


class NoSegmentNameSync(CrashFiles):
    """A twin of a store that forgot to sync the names of its segments."""

    def fsync_directory(self, path: object) -> None:
        if str(path) != DIRECTORY + "/chunks":
            super().fsync_directory(str(path))


@pytest.mark.parametrize("broken", [NoSegmentNameSync, NoQuarantineSync, NoBytesSync])
async def test_the_check_notices_a_forgotten_sync_of_segments(broken: type[CrashFiles]) -> None:
    """Of what segments need."""
    with pytest.raises((AssertionError, Corrupt)):
        await look_for_a_cut(broken, RECORD_BYTES_MAX)


def forget_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies behind the mark is taken for whole."""
    monkeypatch.setattr(Segment, "_settle", lambda *_: None)


def mark_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header vouches for what is synced together with it."""
    commit = Segment.commit

    def early(self: Segment) -> None:
        self._durable_end = self._end
        commit(self)

    monkeypatch.setattr(Segment, "commit", early)


def free_without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is freed and its body's room given back, in whatever order they reach the medium."""
    remove = Segment.remove

    def hasty(self: Segment, items: Sequence[tuple[ChunkId, bytes | None]]) -> list[Slot | None]:
        monkeypatch.setattr(_Handle, "fdatasync", lambda _: None)
        removed = remove(self, items)
        monkeypatch.setattr(_Handle, "fdatasync", lambda handle: handle._sync("fdatasync"))
        return removed

    monkeypatch.setattr(Segment, "remove", hasty)


def copy_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside loses its slot and is nowhere else."""
    monkeypatch.setattr(Records, "copy_out", lambda *_: True)
    monkeypatch.setattr(Quarantine, "take", lambda *_, **__: None)


def vouch_for_what_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The header vouches for ranges that somebody is writing into."""
    write_mark = Segment._write_mark

    def hasty(self: Segment, behind_bytes_max: int = 0) -> None:
        lent, self._lent = self._lent, []
        try:
            write_mark(self, behind_bytes_max)
        finally:
            self._lent = lent

    monkeypatch.setattr(Segment, "_write_mark", hasty)


def borrow_without_sync(
    monkeypatch: pytest.MonkeyPatch, write: Callable[..., list[ChunkReceipt]] = NearRange.write
) -> None:
    """A borrower counts on what it only wrote."""

    def hasty(self: NearRange, bodies: Sequence[NewBody]) -> list[ChunkReceipt]:
        monkeypatch.setattr(_Handle, "fdatasync", lambda _: None)
        try:
            return write(self, bodies)
        finally:
            monkeypatch.setattr(_Handle, "fdatasync", lambda handle: handle._sync("fdatasync"))

    monkeypatch.setattr(NearRange, "write", hasty)


def chain_without_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, by the other way."""
    borrow_without_sync(monkeypatch, write_chained)


def lend_without_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of a segment whose name is not durable."""
    lend = Segment.lend

    def hasty(self: Segment, length: int) -> LentRange:
        self._must_name = False
        return lend(self, length)

    monkeypatch.setattr(Segment, "lend", hasty)


@pytest.fixture
def broken_segments(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """With the mark close behind what is written, and one of the changes above."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", 0)
    request.param(monkeypatch)


@pytest.mark.usefixtures("broken_segments")
@pytest.mark.parametrize(
    "broken_segments",
    [vouch_for_what_is_lent, borrow_without_sync, chain_without_sync, lend_without_name, forget_to_settle],
    indirect=True,
)
async def test_the_check_notices_what_a_loan_forgets() -> None:
    """Of a store that does nothing but lend, so that nothing else makes it good."""

    async def only_borrowed(files: CrashFiles, ledger: Ledger, record_bytes_max: int) -> None:
        store = open_store(files, record_bytes_max)
        try:
            await put_borrowed(store, files, ledger, BORROWED[:2], BORROWED[2:4], BORROWED[4:])
        finally:
            store.close()

    with pytest.raises((AssertionError, Corrupt)):
        await look_for_a_cut(CrashFiles, RECORD_BYTES_MAX, only_borrowed)


@pytest.mark.usefixtures("broken_segments")
@pytest.mark.parametrize(
    "broken_segments", [forget_to_settle, mark_too_early, free_without_sync, copy_nothing], indirect=True
)
async def test_the_check_notices_a_wrong_order_in_segments() -> None:
    """Each of the steps has its reason."""
    with pytest.raises((AssertionError, Corrupt)):
        await look_for_a_cut(CrashFiles, RECORD_BYTES_MAX)


@pytest.mark.parametrize("seed", range(40))
async def test_a_cut_among_concurrent_writers(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Puts, deletes and a batch in flight on several threads when the power goes at some step."""
    monkeypatch.setattr(segment, "MARK_BEHIND_BYTES_MAX", seed % 2 << 20)
    rng = random.Random(seed)
    files, ledger = CrashFiles(), Ledger()
    record_bytes_max = FILES_ONLY if seed % 3 == 0 else RECORD_BYTES_MAX
    clock = ManualClock()
    store = DiskChunkStore(files, DIRECTORY, reserve_bytes=0, clock=clock, threads=4, record_bytes_max=record_bytes_max)
    await put_some(store, ledger, FIRST, SECOND)
    files.cut_before(files.steps + rng.randrange(60))
    outcomes = await asyncio.gather(
        put_one(store, ledger, LARGE),
        put_one(store, ledger, SMALL),
        put_one(store, ledger, SMALL),
        put_some(store, ledger, THIRD, OTHER_GROUP),
        delete(store, ledger, FIRST),
        quarantine(store, ledger, SECOND),
        return_exceptions=True,
    )
    assert all(outcome is None or isinstance(outcome, PowerCut) for outcome in outcomes)
    with suppress(PowerCut):
        store.close()
    for survivors in (files.survivors(), files.survivors(names=True), files.survivors(seed=seed)):
        await check(survivors, ledger)


async def test_leftovers_of_a_cut_are_removed_at_the_next_start() -> None:
    """A cut in the middle of a large put leaves a file in tmp/ that the medium did keep; the next start removes it."""
    files, ledger = CrashFiles(), Ledger()
    store = DiskChunkStore(files, DIRECTORY, reserve_bytes=0, threads=1)
    files.cut_before(files.steps + 3)
    with pytest.raises(PowerCut):
        await store.put(LARGE, len(CONTENTS[LARGE]), cut(CONTENTS[LARGE], 65_552))
    store.close()
    survivors = files.survivors(names=True)
    assert len(list(survivors.list_directory(f"{DIRECTORY}/tmp"))) == 1
    await check(survivors, ledger)
