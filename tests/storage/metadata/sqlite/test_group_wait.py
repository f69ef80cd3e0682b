"""How long a group waits for companions: whoever was just answered may come again, and one sync serves all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.metadata.journal import AppliedGroup
from storage.metadata.sqlite import writer
from storage.metadata.sqlite.database import Execute
from storage.metadata.sqlite.open import MetadataOwner
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.sqlite.owned import GatedJournal, Owned


class SlowJournal(GatedJournal):
    """Time goes by with every group; each waits for a permit once they are counted."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.permits: threading.Semaphore | None = None
        self._clock = clock

    def append(self, execute: Execute, group: AppliedGroup) -> bool:
        self._clock.advance(1e6)
        self.groups.append(group)
        if self.permits is not None:
            self.permits.acquire()
        return False

    async def wait_for_group(self, size: int) -> None:
        """Until one of at least this size is the last that came."""
        while len(self.groups[-1].entries) < size:
            await asyncio.sleep(0.001)


class SlowOwned(Owned):
    """An owner whose groups take so long that it would wait for companions until they come."""

    journal: SlowJournal


@pytest.fixture
async def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowOwned]:
    """Closed after the test."""
    monkeypatch.setattr(writer, "LINGER_S_MAX", 1000.0)
    clock = ManualClock()
    journal = SlowJournal(clock)
    owner = await MetadataOwner.open(tmp_path, clock=clock, journal=journal)
    yield SlowOwned(tmp_path, owner, journal, clock)
    await owner.close()


async def test_half_groups_do_not_go_on_alternating(slow: SlowOwned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight clients are in a group while eight others gather: who is answered is waited for, and they are one group."""
    worker = await Worker.start(slow.metadata)
    journal = slow.journal
    journal.permits = threading.Semaphore(0)

    async def put_twice(number: int) -> None:
        for turn in range(2):
            await worker.put(b"%d %d" % (number, turn))

    async def begin(numbers: range) -> list[asyncio.Task[None]]:
        begun = [asyncio.create_task(put_twice(number)) for number in numbers]
        await asyncio.sleep(0)
        return begun

    count = len(journal.groups)
    tasks = await begin(range(1))
    while len(journal.groups) == count:
        await asyncio.sleep(0.001)
    tasks += await begin(range(1, 9))
    journal.permits.release()
    await journal.wait_for_group(8)
    tasks += await begin(range(9, 16))
    journal.permits.release()
    await journal.wait_for_group(int(16 * writer.LINGER_BELOW))
    monkeypatch.setattr(writer, "LINGER_S_MAX", 1e-6)
    journal.permits.release(100)
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("size", "applying_s", "waiting_s", "wanted"),
    [
        (8, 0.0006, 0.0004, 8),
        (16, 0.0012, 0.0023, 8),
        (8, 0.0006, 0.003, 12),
        (16, 0.0012, 0.0025, 12),
        (8, 0.0, 0.0, 12),
    ],
)
async def test_half_of_them_are_enough_where_the_sync_is_quick(
    slow: SlowOwned, size: int, applying_s: float, waiting_s: float, wanted: int
) -> None:
    """Of sixteen; quick beside what applying all of them would take."""
    committer = slow.owner.committer
    committer._companions = 16
    committer._plan_wait(size, applying_s, waiting_s)
    assert committer._wanted == wanted


async def test_a_lone_client_is_not_kept_waiting(slow: SlowOwned) -> None:
    """However long its groups take: there is nobody to wait for."""
    worker = await Worker.start(slow.metadata)
    for number in range(5):
        await worker.put(b"%d" % number)
    assert [len(group.entries) for group in slow.journal.groups[-5:]] == [1] * 5


async def test_who_does_not_come_back_is_waited_for_once(slow: SlowOwned, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then not counted any more."""
    worker = await Worker.start(slow.metadata)
    slow.journal.permits = threading.Semaphore(0)
    count = len(slow.journal.groups)
    first = asyncio.create_task(worker.put(b"first"))
    while len(slow.journal.groups) == count:
        await asyncio.sleep(0.001)
    puts = [asyncio.create_task(worker.put(b"%d" % number)) for number in range(9)]
    await asyncio.sleep(0)
    slow.journal.permits.release(100)
    await asyncio.gather(first, *puts)
    monkeypatch.setattr(writer, "LINGER_S_MAX", 1e-6)
    await worker.put(b"alone")
    monkeypatch.setattr(writer, "LINGER_S_MAX", 1000.0)
    await worker.put(b"and again")
    assert [len(group.entries) for group in slow.journal.groups[-2:]] == [1, 1]
