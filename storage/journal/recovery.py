"""A database out of what datanodes hold: the newest snapshot that is good, and every record after it.

It is built in a file of its own and given its name when it is whole and durable, so a recovery that stops anywhere is
begun again. Everything acknowledged is in it: it was on every datanode of an ensemble. Nothing deleted, aborted or
refused is: those were records too, or none. The one group that was under way when its owner died may be in it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from storage.base.errors import Corrupt, FrostbyteError
from storage.base.files import DiskFiles
from storage.journal.history import JournalGap, newest_history
from storage.journal.record import Record
from storage.journal.replay import Replayer, read_history
from storage.journal.snapshot_format import Manifest
from storage.journal.snapshots import restore_snapshot
from storage.journal.stock import Stock, StoredSnapshot, note
from storage.metadata.journal import decode_group
from storage.metadata.sqlite.check import check_integrity
from storage.metadata.sqlite.database import connect_reader, connect_writer
from storage.metadata.sqlite.nodes import cluster_map
from storage.metadata.sqlite.position import clear_pending, read_position, set_history, set_snapshot_due
from storage.metadata.sqlite.schema import MIGRATIONS, migrate
from storage.model import Node, NodeState

RECORDS_PER_COMMIT = 256
SNAPSHOTS_TRIED_MAX = 16

OnRecord = Callable[[int], None]
"""called with the sequence now and then"""


class CannotRecover(FrostbyteError):
    """One line for a person: what is missing, and what can be done about it."""


class Recovered(NamedTuple):
    """What the database is now. lost: what was given up, in words; empty when nothing was."""

    history: int
    sequence: int
    applied_at_ms: int
    """the time of the last record; 0 of a database that was never in a journal"""
    replayed: int
    lost: str
    problems: list[str]
    """of the integrity check"""


async def recover_database(
    stock: Stock,
    target: Path,
    *,
    until_ms: int | None = None,
    accept_loss: bool = False,
    on_record: OnRecord = lambda _: None,
) -> Recovered:
    """Build the database in `target`, which is overwritten. until_ms: as it was at that moment. accept_loss: as far as
    the journal goes without a gap. CannotRecover; Corrupt for records that do not fit."""
    candidates, lost = _list_candidates(stock, until_ms, accept_loss=accept_loss)
    for snapshot in candidates[:SNAPSHOTS_TRIED_MAX]:
        try:
            await _restore(snapshot, target)
            break
        except Corrupt as error:
            note(stock.problems, f"snapshot {snapshot.snapshot_id.hex()}: {error}")
    else:
        raise CannotRecover("no snapshot of the records can be read whole on the datanodes that were looked at")
    manifest = snapshot.manifest
    _require_known_schema(stock, manifest)
    with closing(connect_writer(target)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        await asyncio.to_thread(migrate, connection)
        gap, replayed = await _replay(connection, stock, manifest.history, until_ms, accept_loss, on_record)
        lost = "; ".join(filter(None, (lost, gap)))
        keeps_history = until_ms is None and not lost
        recovered = await asyncio.to_thread(_conclude, connection, keeps_history, replayed, lost)
    await asyncio.to_thread(_make_durable, target)
    return recovered


def _list_candidates(stock: Stock, until_ms: int | None, *, accept_loss: bool) -> tuple[list[StoredSnapshot], str]:
    """Snapshots to begin from, the best first, and what is given up with them."""
    headers = [it.header for it in stock.segments.values() if until_ms is None or it.header.opened_ms <= until_ms]
    whole = [
        it for it in stock.snapshots.values() if it.is_complete and (until_ms is None or _is_of(it.manifest, until_ms))
    ]
    if not whole:
        when = "" if until_ms is None else " of that time or before"
        raise CannotRecover(f"there is no snapshot of the records{when} on the datanodes that were looked at")
    whole.sort(key=lambda it: (it.manifest.taken_ms, it.manifest.sequence), reverse=True)
    present = newest_history(headers) or whole[0].manifest.history
    chosen, lost = present, ""
    if not any(it.manifest.history == present for it in whole):
        chosen = whole[0].manifest.history
        lost = "the journal of that time has no snapshot yet, so what was written since it began is lost"
        if not accept_loss:
            raise CannotRecover(f"{lost}; with --accept-loss the one before it is taken")
    return [it for it in whole if it.manifest.history == chosen], lost


def _is_of(manifest: Manifest, until_ms: int) -> bool:
    return max(manifest.taken_ms, manifest.applied_at_ms) <= until_ms


async def _restore(snapshot: StoredSnapshot, target: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    target.touch(mode=0o600)
    with target.open("wb") as file:
        await restore_snapshot(snapshot, file)


async def _replay(
    connection: sqlite3.Connection,
    stock: Stock,
    history: int,
    until_ms: int | None,
    accept_loss: bool,
    on_record: OnRecord,
) -> tuple[str, int]:
    """→ what was given up, and how many records were applied."""
    clear_pending(connection.execute)
    replayer, replayed, waiting = Replayer(connection), 0, list[Record]()
    position = read_position(connection.execute)
    gap = ""
    try:
        async for record in read_history(stock, history, position.sequence):
            if until_ms is not None and decode_group(record.payload).applied_at_ms > until_ms:
                break
            waiting.append(record)
            replayed += 1
            if len(waiting) >= RECORDS_PER_COMMIT:
                await asyncio.to_thread(_apply, connection, replayer, waiting)
                on_record(record.sequence)
                waiting = []
    except JournalGap as error:
        if not accept_loss:
            raise CannotRecover(f"{error}; with --accept-loss the records up to there are taken") from error
        gap = str(error)
    await asyncio.to_thread(_apply, connection, replayer, waiting)
    return gap, replayed


def _require_known_schema(stock: Stock, manifest: Manifest) -> None:
    segments = [it.header for it in stock.segments.values() if it.header.history == manifest.history]
    newest = max([manifest.schema_version, *(header.schema_version for header in segments)])
    if newest > len(MIGRATIONS):
        raise CannotRecover(f"the journal is of schema version {newest}: recover with the Frostbyte that wrote it")


def _apply(connection: sqlite3.Connection, replayer: Replayer, records: list[Record]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for record in records:
            replayer.apply(record)
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _conclude(connection: sqlite3.Connection, keeps_history: bool, replayed: int, lost: str) -> Recovered:
    """Where it stands in its journal, and whether it is whole. What is not the newest state begins a journal anew."""
    position = read_position(connection.execute)
    connection.execute("BEGIN IMMEDIATE")
    set_snapshot_due(connection.execute, True)
    if not keeps_history:
        set_history(connection.execute, 0)
    connection.execute("COMMIT")
    problems = check_integrity(connection)
    return Recovered(position.history, position.sequence, position.applied_at_ms, replayed, lost, problems)


def _make_durable(target: Path) -> None:
    """One file, its log copied back, synced."""
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    files = DiskFiles()
    with files.open(target, writable=True) as file:
        file.fsync()
    files.fsync_directory(os.fspath(target.parent))


def leave_history(target: Path) -> None:
    """The journal may have gone on elsewhere: what is written from now on begins one anew."""
    with closing(connect_writer(target)) as connection:
        set_history(connection.execute, 0)
    _make_durable(target)


def list_unseen(target: Path, seen: frozenset[str]) -> list[Node]:
    """The datanodes of the records that are not retired, and whose journal files were not looked at. seen: node ids."""
    with closing(connect_reader(target)) as connection:
        nodes = cluster_map(connection.execute).nodes
    return [node for node in nodes if node.state is not NodeState.GONE and node.report.node_id not in seen]


def count_copies(stock: Stock, history: int) -> int:
    """On how many datanodes the newest record of a history is: fewer that nobody looked at cannot hide a later one."""
    headers = [it.header for it in stock.segments.values() if it.header.history == history]
    return max(headers, key=lambda it: it.segment_id).copies if headers else 1
