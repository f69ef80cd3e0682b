"""The write-ahead log stays bounded under load, and a reader's old snapshot survives the checkpoints around it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storage.metadata.sqlite.checkpoint import Checkpointer
from storage.metadata.sqlite.database import Snapshot, connect_reader, connect_writer

PAGES_MAX = 200
WRITES = 2000


class Written:
    """A database with a writer that commits one page-sized row at a time, and its checkpointer."""

    def __init__(self, path: Path, writing: sqlite3.Connection, beside: sqlite3.Connection) -> None:
        self.path = path
        self.writing = writing
        self.checkpointer = Checkpointer(beside, writing, log_pages_per_pass=50, log_pages_max=PAGES_MAX)
        writing.execute("PRAGMA synchronous=OFF")
        writing.execute("CREATE TABLE t (x BLOB)")
        self.checkpointer.start()

    def write(self, count: int) -> None:
        for _ in range(count):
            self.writing.execute("INSERT INTO t VALUES (zeroblob(8000))")
            self.checkpointer.after_group(1, 8000)

    def log_pages(self) -> int:
        return Path(f"{self.path}-wal").stat().st_size // 4096


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    """Not yet written to."""
    path = tmp_path / "metadata.db"
    with closing(connect_writer(path)) as writing, closing(connect_writer(path)) as beside:
        running = Written(path, writing, beside)
        yield running
        running.checkpointer.close()


def test_the_log_is_bounded_under_load(written: Written) -> None:
    """Thousands of pages are written, and the file never holds more than a few times the bound."""
    written.write(WRITES)
    assert written.log_pages() < 4 * PAGES_MAX < 2 * WRITES
    written.checkpointer.close()
    assert written.log_pages() == 0
    with closing(sqlite3.connect(written.path)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (WRITES,)


def test_a_reader_keeps_its_snapshot_and_only_puts_off_the_start_over(written: Written) -> None:
    """Writes go on beside it; when it is done the log is used from its start again."""
    written.write(10)
    with closing(connect_reader(written.path)) as reader:
        with Snapshot(reader) as execute:
            assert execute("SELECT count(*) FROM t").fetchone() == (10,)
            written.write(WRITES)
            assert execute("SELECT count(*) FROM t").fetchone() == (10,)
        grown = written.log_pages()
        assert grown > 2 * WRITES
        written.write(WRITES)
        assert written.log_pages() < grown + 2 * PAGES_MAX
        with Snapshot(reader) as execute:
            assert execute("SELECT count(*) FROM t").fetchone() == (10 + 2 * WRITES,)
