"""The shared page says what the database says, from the answer to a change on, in every worker and of every owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.errors import UserAlreadyExists
from storage.metadata.commands import CreateUser, DeleteUser, OpenSession
from storage.metadata.interface import Metadata
from storage.metadata.sqlite.configuration import configuration_sequence
from storage.metadata.sqlite.configuration_page import ConfigurationPage, page_path
from storage.model import AccessKey, User
from tests.storage.metadata.engines import SqliteEngine


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    """An owner and its socket in this process."""
    started = SqliteEngine(tmp_path)
    await started.start()
    yield started
    await started.stop()


def told(metadata: Metadata) -> int:
    """What the short way goes by."""
    assert metadata.at_once is not None
    return metadata.at_once.configuration_sequence()


def page_of(engine: SqliteEngine) -> int:
    page = ConfigurationPage.open(engine.socket_path)
    assert page is not None
    sequence = page.sequence
    page.close()
    return sequence


async def test_a_change_is_on_the_page_when_it_is_answered(engine: SqliteEngine) -> None:
    """In the worker that made it and in another; what changes nothing raises nothing."""
    first, second = await engine.connect(), await engine.connect()
    for number in range(20):
        await first.apply(CreateUser(User(f"i{number}", f"n{number}", "")))
        sequence = await second.configuration_sequence()
        assert told(first) == told(second) == page_of(engine) == sequence
    await second.apply(DeleteUser("n0"))
    assert told(first) == page_of(engine) == sequence + 1
    await first.apply(OpenSession(b"12345678", "x"))
    with pytest.raises(UserAlreadyExists):
        await first.apply(CreateUser(User("i1", "n1", "")))
    assert told(second) == page_of(engine) == sequence + 1


async def test_a_change_that_was_undone_is_not_on_the_page(engine: SqliteEngine) -> None:
    """A user whose access key turns out to be taken, when the sequence had been raised for it."""
    metadata = await engine.connect()
    await metadata.apply(CreateUser(User("i0", "n0", ""), AccessKey("AK", "i0", b"")))
    before = told(metadata)
    with pytest.raises(UserAlreadyExists):
        await metadata.apply(CreateUser(User("i1", "n1", ""), AccessKey("AK", "i1", b"")))
    assert told(metadata) == page_of(engine) == await metadata.configuration_sequence() == before


async def test_what_another_hand_committed_is_on_the_page(engine: SqliteEngine) -> None:
    """Whoever holds the writer may have applied what other owners had committed."""
    metadata = await engine.connect()
    assert engine._owner is not None
    async with engine._owner.committer.held() as connection:
        connection.execute("UPDATE meta SET value = value + 5 WHERE name = 'configuration_sequence'")
        expected = configuration_sequence(connection.cursor().execute)
    await metadata.apply(OpenSession(b"12345678", "x"))
    assert told(metadata) == page_of(engine) == expected


async def test_each_owner_has_a_page_of_its_own(tmp_path: Path) -> None:
    """A worker goes over to the next owner's with its connection, and knows nothing of the old one's any more."""
    first = SqliteEngine(tmp_path)
    await first.start()
    metadata = await first.connect()
    await metadata.apply(CreateUser(User("i0", "n0", "")))
    first._workers.clear()
    old = ConfigurationPage.open(first.socket_path)
    assert old is not None
    await first.stop()
    assert not page_path(first.socket_path).exists()
    second = SqliteEngine(tmp_path)
    await second.start()
    await metadata.apply(CreateUser(User("i1", "n1", "")))
    assert told(metadata) == page_of(second) == old.sequence + 1
    old.close()
    await metadata.close()
    await second.stop()


@pytest.mark.parametrize("content", [None, b"", b"1234"])
async def test_without_a_page_the_database_is_asked(tmp_path: Path, content: bytes | None) -> None:
    """Nothing there, or nothing that can be looked at."""
    engine = SqliteEngine(tmp_path)
    await engine.start()
    path = page_path(engine.socket_path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    metadata = await engine.connect()
    await metadata.apply(CreateUser(User("i0", "n0", "")))
    assert told(metadata) == await metadata.configuration_sequence()
    await engine.stop()


def test_a_page_that_nobody_has_told_yet_is_of_no_sequence(tmp_path: Path) -> None:
    """So that nothing that is remembered passes for current."""
    page = ConfigurationPage.create(tmp_path / "s")
    reading = ConfigurationPage.open(tmp_path / "s")
    assert reading is not None
    assert reading.sequence == 0
    page.tell(2**40 + 1)
    assert reading.sequence == 2**40 + 1
    assert page_path(tmp_path / "s").stat().st_mode & 0o777 == 0o600
    page.close()
    reading.close()
