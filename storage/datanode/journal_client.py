"""The journal files of a datanode seen from afar, with a deadline on every call: from an event loop, and for appends
from a thread that waits.

Raises what JournalFiles raises, and NodeUnreachable for everything that is about the way there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

from storage.base.address import Address
from storage.base.errors import JournalError, Unavailable
from storage.base.internal_client import Answer, Deadlines, InternalClient
from storage.base.internal_line import InternalLine
from storage.datanode import journal_wire, wire
from storage.datanode.answers import read_answer, strange
from storage.datanode.journal_wire import JournalListing

DEADLINES = Deadlines(connect_s=1.0, progress_s=5.0, answer_s=5.0)
"""a datanode that does not answer holds up every write to the metadata"""
WHOLE_TIMEOUT_S = 10.0
ONE_PIECE_BYTES_MAX = 512 * 1024
"""a body up to this size is handed to the connection at once"""
CONNECTIONS_MAX = 16

_T = TypeVar("_T")


class JournalClient:
    """One remote datanode. token: access_token of the node's key."""

    def __init__(self, address: Address, token: str, *, tls_ca: str | None = None) -> None:
        """OSError when tls_ca cannot be read."""
        self._http = InternalClient(address, token, tls_ca=tls_ca, deadlines=DEADLINES, connections_max=CONNECTIONS_MAX)
        self._line = InternalLine(address, token, tls_ca=tls_ca)

    @property
    def address(self) -> Address:
        """Where the datanode is."""
        return self._http.address

    async def close(self) -> None:
        """Close the connections."""
        self._line.close()
        await self._http.close()

    async def list(self) -> JournalListing:
        """As JournalFiles."""
        return self._parsed(await self._http.call("GET", journal_wire.JOURNAL), (200,), journal_wire.parse_listing)

    async def fence(self, owner: bytes) -> JournalListing:
        """Shut out every owner below; what is there once that is durable. JournalFenced by a higher one."""
        answer = await self._http.call("POST", journal_wire.change_target(journal_wire.FENCE, owner))
        return self._parsed(answer, (200,), journal_wire.parse_listing)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes, at most READ_BYTES_MAX; empty at and beyond the end."""
        headers = {"Range": wire.format_range(offset, length)}
        answer = await self._http.call(
            "GET", journal_wire.file_target(name), headers=headers, answer_bytes_max=journal_wire.READ_BYTES_MAX
        )
        return b"" if answer.status == 416 else self._parsed(answer, (206,), bytes)

    async def put(self, owner: bytes, name: str, data: bytes, timeout_s: float = WHOLE_TIMEOUT_S) -> None:
        """A whole new file, durable when it returns."""
        target = journal_wire.change_target(journal_wire.file_target(name), owner)
        await self._change(target, data, timeout_s, len(data))

    def start_append(self, owner: bytes, name: str, offset: int, data: bytes, timeout_s: float) -> Callable[[], None]:
        """Off the event loop, one at a time: send the bytes, so that other datanodes can be sent them meanwhile. What
        it gives waits until they are durable."""
        target = journal_wire.change_target(journal_wire.file_target(name), owner, offset)
        self._line.send("PUT", target, data, timeout_s)
        return partial(self._finish_append, offset + len(data))

    async def delete(self, owner: bytes, name: str) -> bool:
        """Whether it was there."""
        target = journal_wire.change_target(journal_wire.file_target(name), owner)
        return self._parsed(await self._http.call("DELETE", target), (200,), journal_wire.parse_flag)

    async def _change(self, target: str, data: bytes, timeout_s: float, length: int) -> None:
        if len(data) <= ONE_PIECE_BYTES_MAX:
            answer = await self._http.call("PUT", target, data, timeout_s=timeout_s)
        else:
            answer = await self._http.send("PUT", target, _cut(data), len(data), expect_continue=False)
        self._require_length(answer, length)

    def _finish_append(self, length: int) -> None:
        self._require_length(self._line.receive(), length)

    def _require_length(self, answer: Answer, length: int) -> None:
        if self._parsed(answer, (200, 201), journal_wire.parse_length) != length:
            raise strange(self.address, answer)

    def _parsed(self, answer: Answer, statuses: tuple[int, ...], parse: Callable[[bytes], _T]) -> _T:
        if answer.status not in statuses:
            raise self._failure(answer)
        return read_answer(self.address, answer, parse)

    def _failure(self, answer: Answer) -> Exception:
        error = wire.parse_failure(answer.headers.get(wire.ERROR_HEADER, ""), answer.body)
        if error is None or isinstance(error, Unavailable):
            return strange(self.address, answer)
        return type(error)(f"{self.address}: {error}") if isinstance(error, JournalError) else error


async def _cut(data: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(data), ONE_PIECE_BYTES_MAX):
        yield view[start : start + ONE_PIECE_BYTES_MAX]
