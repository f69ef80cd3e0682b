"""What a datanode says of its medium: as it is now, without ever waiting for it."""

from __future__ import annotations

import asyncio

from storage.base.clock import ManualClock
from storage.base.errors import ChunkError
from storage.chunks.memory import MemoryChunkStore
from storage.datanode.medium_watch import ANSWER_WAIT_S, PROBE_INTERVAL_S, MediumWatch


class Medium(MemoryChunkStore):
    """Fails or hangs as told."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.probes = 0

    async def probe(self) -> None:
        self.probes += 1
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error


async def look(watch: MediumWatch, clock: ManualClock, seconds: float) -> str:
    """What it says, a second at a time, at the end."""
    said = watch.look()
    for _ in range(round(seconds)):
        clock.advance(1)
        said = watch.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return said


async def test_a_medium_that_fails_is_told_until_it_works_again() -> None:
    """Tried every few seconds, however often it is asked."""
    clock, medium = ManualClock(), Medium()
    watch = MediumWatch(medium, clock)
    assert await look(watch, clock, 20) == ""
    assert 3 <= medium.probes <= 20 / PROBE_INTERVAL_S + 1
    medium.error = ChunkError("the medium does not write: Input/output error")
    assert await look(watch, clock, 2 * PROBE_INTERVAL_S) == str(medium.error)
    medium.error = OSError("x" * 1000)
    assert await look(watch, clock, 2 * PROBE_INTERVAL_S) == "x" * 200
    medium.error = None
    assert await look(watch, clock, 2 * PROBE_INTERVAL_S) == ""
    watch.close()


async def test_a_medium_that_hangs_is_told_and_not_asked_again() -> None:
    """One trial waits, however long; its end counts."""
    clock, medium = ManualClock(), Medium()
    watch = MediumWatch(medium, clock)
    medium.may_answer.clear()
    assert await look(watch, clock, ANSWER_WAIT_S - 1) == ""
    assert await look(watch, clock, 100) == "the medium does not answer"
    assert medium.probes == 1
    medium.may_answer.set()
    assert await look(watch, clock, 2) == ""
    watch.close()
