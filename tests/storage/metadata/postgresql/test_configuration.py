"""The configuration sequence: read once for many who ask, and never older than the call."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import Unavailable
from storage.metadata.commands import PutBucketSetting
from storage.metadata.postgresql import configuration
from storage.metadata.postgresql.configuration import SequenceReader
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.engine import PostgresMetadata
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine


class HeldDatabase(Database):
    """Answers each read when the test says so."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[int]] = []
        self.has_begun = asyncio.Event()

    async def read(self, statement: str, *arguments: object) -> list[tuple[int]]:  # type: ignore[override]
        answer = asyncio.get_running_loop().create_future()
        self.reads.append(answer)
        self.has_begun.set()
        return [(await answer,)]

    async def begun(self, count: int) -> asyncio.Future[int]:
        """The count-th read, once it has begun."""
        while len(self.reads) < count:
            self.has_begun.clear()
            await self.has_begun.wait()
        return self.reads[count - 1]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads wait for the one before, as long as it takes."""
    monkeypatch.setattr(configuration, "JOIN_WAIT_S", None)


async def test_who_asks_while_a_read_is_under_way_shares_the_next() -> None:
    """The one that began before they asked is not for them."""
    database = HeldDatabase()
    reader = SequenceReader(database)
    first = asyncio.create_task(reader.read())
    answer = await database.begun(1)
    later = [asyncio.create_task(reader.read()) for _ in range(50)]
    await asyncio.sleep(0)
    answer.set_result(1)
    assert await first == 1
    (await database.begun(2)).set_result(2)
    assert await asyncio.gather(*later) == [2] * 50
    assert len(database.reads) == 2


async def test_a_cancelled_caller_takes_nobody_along() -> None:
    """Neither who began the read under way nor who began the next."""
    database = HeldDatabase()
    reader = SequenceReader(database)
    first = asyncio.create_task(reader.read())
    await database.begun(1)
    second, third = (asyncio.create_task(reader.read()) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    (await database.begun(2)).set_result(7)
    assert await third == 7
    assert first.cancelled()
    assert second.cancelled()


async def test_an_error_is_everybodys_who_shared_the_read() -> None:
    """And the next who asks tries again."""
    database = HeldDatabase()
    reader = SequenceReader(database)
    first = asyncio.create_task(reader.read())
    answer = await database.begun(1)
    others = [asyncio.create_task(reader.read()) for _ in range(3)]
    await asyncio.sleep(0)
    answer.set_exception(Unavailable("lost"))
    (await database.begun(2)).set_exception(Unavailable("lost again"))
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [str(result) for result in results] == ["lost", *["lost again"] * 3]
    last = asyncio.create_task(reader.read())
    (await database.begun(3)).set_result(3)
    assert await last == 3


async def test_a_read_that_stalls_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins beside it, after a moment."""
    monkeypatch.setattr(configuration, "JOIN_WAIT_S", 0.001)
    database = HeldDatabase()
    reader = SequenceReader(database)
    stalled = asyncio.create_task(reader.read())
    await database.begun(1)
    for number in (2, 3):
        other = asyncio.create_task(reader.read())
        (await database.begun(number)).set_result(number)
        assert await other == number
    database.reads[0].set_result(1)
    assert await stalled == 1


async def test_no_reader_misses_a_change_that_was_acknowledged_before(
    postgres: PostgresEngine, metadata: PostgresMetadata, worker: Worker
) -> None:
    """Many who ask all the time, beside one who changes settings elsewhere."""
    other = await postgres.connect()
    acknowledged, is_over = await metadata.configuration_sequence(), False
    asked = 0

    async def ask() -> None:
        nonlocal asked
        while not is_over:
            least = acknowledged
            assert await metadata.configuration_sequence() >= least
            asked += 1

    asking = [asyncio.create_task(ask()) for _ in range(40)]
    for number in range(60):
        await other.apply(PutBucketSetting(worker.bucket.bucket_id, "cors", b"%d" % number))
        acknowledged += 1
    is_over = True
    await asyncio.gather(*asking)
    assert asked > 40
    assert await metadata.configuration_sequence() == acknowledged
