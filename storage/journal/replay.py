"""Records back into rows: what the journal holds after a sequence, in order, applied to a database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator

from storage.base.errors import Corrupt, Refused
from storage.journal.history import JournalGap, plan_spans, spans_after
from storage.journal.record import Record, read_records
from storage.journal.stock import Stock, read_replicas
from storage.metadata.journal import decode_group
from storage.metadata.sqlite.apply import apply_command
from storage.metadata.sqlite.database import Transaction
from storage.metadata.sqlite.position import advance


class ReplayDiverged(Corrupt):
    """A record does not fit the rows that it should be applied to."""


async def read_history(stock: Stock, history: int, after: int) -> AsyncIterator[Record]:
    """The records of a history after a sequence, one by one. JournalGap where some are missing and later ones are not;
    what cannot be read is added to the stock's problems."""
    headers = [segment.header for segment in stock.segments.values()]
    expected = after + 1
    for span in spans_after(plan_spans(headers, history), after):
        if span.first > expected:
            raise JournalGap(expected, span.first - 1)
        segment = stock.segments[span.segment_id]
        for record in read_records(segment.seal, await read_replicas(segment, stock.problems)):
            if span.last is not None and record.sequence > span.last:
                break
            if record.sequence == expected:
                yield record
                expected += 1


class Replayer:
    """Applies records to a database that nobody else writes. The caller begins and commits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._transaction = Transaction(connection.cursor())

    def apply(self, record: Record) -> None:
        """All commands of a group at the time that they were applied at first. ReplayDiverged, Corrupt."""
        group = decode_group(record.payload)
        transaction = self._transaction
        transaction.begin(group.applied_at_ms)
        if advance(transaction.execute, group.applied_at_ms) != record.sequence:
            raise ReplayDiverged(f"record {record.sequence} is not the next one")
        for command, _ in group.entries:
            try:
                apply_command(transaction, command)
            except (Refused, sqlite3.IntegrityError) as error:
                name = type(command).__name__
                raise ReplayDiverged(f"record {record.sequence}: {name} is refused: {error}") from error
