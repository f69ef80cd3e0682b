"""Where the database stands in its journal, and what waits until the journal can take it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.metadata.commands import ExtendLeases, OpenSession
from storage.metadata.journal import AppliedGroup, decode_group
from storage.metadata.sqlite import position
from storage.metadata.sqlite.database import DATABASE_NAME, connect_writer
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.position import LocalJournal, list_pending, read_position, set_history
from storage.metadata.sqlite.schema import migrate

HISTORY = 2**62 + 7


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A fresh database."""
    connection = connect_writer(tmp_path / DATABASE_NAME)
    migrate(connection)
    yield connection
    connection.close()


def group(number: int) -> AppliedGroup:
    return AppliedGroup(1000 + number, ((OpenSession(b"%08d" % number, "x"), True), (ExtendLeases(), False)))


def append(connection: sqlite3.Connection, number: int) -> None:
    connection.execute("BEGIN")
    assert LocalJournal().append(connection.execute, group(number)) is False
    connection.execute("COMMIT")


def test_without_a_history_nothing_is_kept(connection: sqlite3.Connection) -> None:
    """A database that was never in a journal pays nothing for one."""
    append(connection, 1)
    assert read_position(connection.execute) == (0, 0, 0, 0, False)
    assert list_pending(connection.execute) == []


def test_what_cannot_go_into_the_journal_waits_with_what_it_changed(connection: sqlite3.Connection) -> None:
    """Each group under its sequence, without what was refused; undone with its transaction."""
    set_history(connection.execute, HISTORY)
    append(connection, 1)
    append(connection, 2)
    connection.execute("BEGIN")
    LocalJournal().append(connection.execute, group(3))
    connection.execute("ROLLBACK")
    assert read_position(connection.execute) == (2, 1002, HISTORY, 0, False)
    assert [(sequence, decode_group(record)) for sequence, record in list_pending(connection.execute)] == [
        (1, AppliedGroup(1001, ((OpenSession(b"00000001", "x"), True),))),
        (2, AppliedGroup(1002, ((OpenSession(b"00000002", "x"), True),))),
    ]


@pytest.mark.parametrize("bound", ["PENDING_RECORDS_MAX", "PENDING_BYTES_MAX"])
def test_too_much_that_waits_ends_the_history(
    connection: sqlite3.Connection, bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one begins with a snapshot; until then nothing more is kept."""
    monkeypatch.setattr(position, bound, 3 if bound == "PENDING_RECORDS_MAX" else 100)
    set_history(connection.execute, HISTORY)
    for number in range(10):
        append(connection, number)
    assert read_position(connection.execute).history == 0
    assert list_pending(connection.execute) == []


async def test_a_command_on_a_stopped_server_waits_for_the_journal(tmp_path: Path) -> None:
    """Of a database whose server replicates."""
    first = await open_owned_metadata(tmp_path)
    await first.close()
    connection = connect_writer(tmp_path / DATABASE_NAME)
    set_history(connection.execute, HISTORY)
    offline = await open_owned_metadata(tmp_path)
    await offline.apply(OpenSession(b"12345678", "offline"))
    await offline.close()
    waiting = [decode_group(record).entries[0][0] for _, record in list_pending(connection.execute)]
    assert waiting == [ExtendLeases(), OpenSession(b"12345678", "offline")]
    connection.close()
