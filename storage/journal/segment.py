"""The segment that is being written: the same bytes to every datanode of its ensemble, at once.

A record is acknowledged when all of them have synced it. After anything went wrong with one of them the segment takes
nothing more, and whoever writes opens another one, on others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from storage.base.errors import FrostbyteError, JournalFenced
from storage.datanode.journal_client import JournalClient
from storage.datanode.journal_wire import segment_name
from storage.journal.record import Record, SegmentSeal
from storage.model import Node

SEGMENT_BYTES_MAX = 32 << 20
"""a segment that is longer takes no more: what is read as a whole and deleted as a whole"""
APPEND_TIMEOUT_S = 2.0
CREATE_TIMEOUT_S = 4.0

_T = TypeVar("_T")

Replicas = Sequence[tuple[Node, JournalClient]]


class ReplicaFailed(Exception):
    """These datanodes (by number) did not take what was written. fenced: one was at the hands of a later owner."""

    def __init__(self, numbers: tuple[int, ...], fenced: bool, reason: str) -> None:
        super().__init__(reason)
        self.numbers = numbers
        self.fenced = fenced


class OpenSegment:
    """Of one writer, which is on its event loop or waits for it, or has the loop leave the segment alone."""

    def __init__(self, owner: bytes, seal: SegmentSeal, replicas: Replicas) -> None:
        """owner: what datanodes know the writer by."""
        self.header = seal.header
        self.nodes = tuple(node for node, _ in replicas)
        self.next_sequence = seal.header.first_sequence
        self.length = 0
        self.is_over = False
        self._owner = owner
        self._seal = seal
        self._replicas = replicas
        self._name = segment_name(seal.header.segment_id)

    def takes(self, record: Record) -> bool:
        """Whether this is the record that comes next, and there is room."""
        return not self.is_over and record.sequence == self.next_sequence and self.length < SEGMENT_BYTES_MAX

    async def create(self, records: Sequence[Record]) -> None:
        """Make it durable with its first records. ReplicaFailed."""
        data = self._seal.seal_header() + b"".join(map(self._seal.seal_record, records))
        await self._everywhere(lambda client: client.put(self._owner, self._name, data, CREATE_TIMEOUT_S))
        self.next_sequence += len(records)
        self.length = len(data)

    def append(self, record: Record) -> None:
        """Make one more record durable; on a thread that may wait. ReplicaFailed."""
        data, offset = self._seal.seal_record(record), self.length
        self.is_over = True  # unless nothing goes wrong
        outcomes: list[Callable[[], None] | FrostbyteError | None] = [
            _attempt(partial(client.start_append, self._owner, self._name, offset, data, APPEND_TIMEOUT_S))
            for _, client in self._replicas
        ]
        self._judge([_attempt(outcome) if callable(outcome) else outcome for outcome in outcomes])
        self.is_over = False
        self.next_sequence += 1
        self.length += len(data)

    async def _everywhere(self, write: Callable[[JournalClient], Awaitable[None]]) -> None:
        outcomes = await asyncio.gather(*(write(client) for _, client in self._replicas), return_exceptions=True)
        self.is_over = any(isinstance(outcome, BaseException) for outcome in outcomes)
        self._judge(outcomes)

    def _judge(self, outcomes: Sequence[object]) -> None:
        failures = {
            node.number: outcome
            for (node, _), outcome in zip(self._replicas, outcomes, strict=True)
            if isinstance(outcome, BaseException)
        }
        for error in failures.values():
            if not isinstance(error, FrostbyteError):
                raise error
        if failures:
            fenced = any(isinstance(error, JournalFenced) for error in failures.values())
            raise ReplicaFailed(tuple(failures), fenced, "; ".join(map(str, failures.values())))


def _attempt(step: Callable[[], _T]) -> _T | FrostbyteError:
    """What it gives, or its error: the other datanodes are gone on with."""
    try:
        return step()
    except FrostbyteError as error:
        return error
