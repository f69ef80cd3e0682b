"""One connection to an internal server: a request at a time goes out, its answer comes in, and a deadline watches.

Whatever ends the connection before the answer is whole (a reset, an end, a deadline, bytes that are no answer) is kept
and raised by whoever waits. Nothing here is tried again.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections import deque
from collections.abc import Sequence
from typing import cast

from storage.base.answer_reader import AnswerHead, AnswerReader
from storage.base.deadline import Deadline

READ_BUFFER_BYTES = 512 * 1024
"""of an answer that nobody has taken yet; reading pauses above"""
WRITE_BUFFER_BYTES = 256 * 1024
"""of a body that the system has not taken yet; above, a sender waits"""

UNIX_SEND_BYTES = 640 * 1024
"""asked of the system for a Unix socket. It takes twice that, with what it needs for itself, so a body of a MiB is
handed over in one call instead of five, with as many wakings on both sides; where it gives less, it takes more calls"""

Buffer = bytes | bytearray | memoryview


class StrangeAnswer(OSError):
    """The other side does not speak as an internal server does."""


class Stage(enum.Enum):
    """What of an answer is waited for."""

    AGREED = "100 Continue, or the final head"
    HEAD = "the final head"
    BLOCK = "some of the body, or its end"
    END = "all of it"


class InternalConnection(asyncio.Protocol):
    """Made by the loop's create_connection. `begin` and the writes, then `wait`; `is_reusable` says what it is good for
    afterwards, and `abort` ends it at any time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since_s = 0.0
        self.exchanges = 0
        """begun on this connection"""
        self.failure: Exception | None = None
        self._loop = loop
        self._reader = AnswerReader()
        self._deadline = Deadline(loop, lambda: self.fail(TimeoutError("the deadline has passed")))
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._awaited = Stage.HEAD
        self._blocks: deque[bytes] = deque()
        self._held_bytes = 0
        self._bytes_max = 0
        self._is_paused = False
        self._has_sent = False
        self._room: asyncio.Future[None] | None = None
        """while what was written is above WRITE_BUFFER_BYTES"""

    # ------------------------------------------------------------------ what the pool asks

    @property
    def is_reusable(self) -> bool:
        """Whether another request may follow: this one was sent and answered whole, and nobody ended the connection."""
        head = self._reader.head
        return self._reader.is_over and self._has_sent and head is not None and head.keeps and self.failure is None

    @property
    def was_stale(self) -> bool:
        """Whether it was kept from an earlier exchange and lost before anything of the present answer came."""
        return self.exchanges > 1 and self._reader.head is None and not self._reader.is_agreed

    def abort(self) -> None:
        """End it now; whoever waits is told."""
        self.fail(ConnectionResetError("the connection was closed on this side"))

    # ------------------------------------------------------------------ one exchange

    def begin(self, head: bytes, body: Sequence[Buffer] | None, *, has_answer_body: bool, bytes_max: int) -> None:
        """Send a request's head, and the blocks of its body where all are in memory; with None they are written by
        `write` and `end_body`. bytes_max: of an answer that is waited for whole; 0 for one that is taken block by
        block, or has no body."""
        self.exchanges += 1
        self._blocks.clear()  # of an answer that came whole and was not taken
        self._held_bytes = 0
        self._resume()
        self._reader.begin(has_body=has_answer_body)
        self._bytes_max = bytes_max
        self._has_sent = body is not None
        transport = self._transport
        if transport is None or self.failure is not None:
            return
        if body:
            transport.writelines((head, *body))
        else:
            transport.write(head)

    def write(self, block: Buffer) -> None:
        """The next block of the body."""
        if self._transport is not None and self.failure is None:
            self._transport.write(block)

    async def drain(self, within_s: float) -> bool:
        """Until the other side has taken enough for the next block; False when the connection is over."""
        if self._room is not None and self.failure is None:
            self._deadline.move(within_s)
            await self._room
            self._deadline.move(None)
        return self.failure is None

    def end_body(self) -> None:
        """All blocks were written."""
        self._has_sent = True

    def expect(self, within_s: float | None) -> None:
        """What comes next has to come within so many seconds; None: the other side owes nothing now."""
        self._deadline.move(within_s)

    async def wait(self, stage: Stage) -> None:
        """Until the answer is so far. Raises what ended the connection: OSError, TimeoutError."""
        while not self._has_reached(stage):
            if self.failure is not None:
                raise self.failure
            self._awaited = stage
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    @property
    def has_head(self) -> bool:
        """Whether the final head came."""
        return self._reader.head is not None

    @property
    def head(self) -> AnswerHead:
        """Once it was waited for."""
        assert self._reader.head is not None, "the head was waited for"
        return self._reader.head

    def take_block(self) -> bytes:
        """What came of the body, oldest first; empty when there is nothing."""
        if not self._blocks:
            return b""
        block = self._blocks.popleft()
        self._held_bytes -= len(block)
        if self._held_bytes <= READ_BUFFER_BYTES // 2:
            self._resume()
        return block

    def take_body(self) -> bytes:
        """Of an answer that was waited for whole."""
        blocks = self._blocks
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        self._held_bytes = 0
        return body

    # ------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)
        own = transport.get_extra_info("socket")
        if own is not None and own.family == socket.AF_UNIX:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_SEND_BYTES)

    def data_received(self, data: bytes) -> None:
        if self.failure is not None:
            return
        reader = self._reader
        try:
            block = reader.feed(data)
        except ValueError as error:
            self.fail(StrangeAnswer(str(error)))
            return
        if block:
            self._blocks.append(block)
            self._held_bytes += len(block)
        if reader.head is not None:
            self._bound(reader.head)
        if reader.is_over:
            self._deadline.move(None)
        if self._waiter is not None and self._has_reached(self._awaited):
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionResetError("the other side closed the connection"))
        self._transport = None

    def pause_writing(self) -> None:
        if self._room is None:
            self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # ------------------------------------------------------------------

    def fail(self, failure: Exception) -> None:
        """The connection is over, for this reason unless there was one before."""
        if self.failure is None:
            self.failure = failure
            if self._transport is not None:
                self._transport.abort()
            self._wake()
            self.resume_writing()
        self._deadline.close()

    def _has_reached(self, stage: Stage) -> bool:
        reader = self._reader
        if stage is Stage.AGREED:
            return reader.is_agreed or reader.head is not None
        if stage is Stage.HEAD:
            return reader.head is not None
        if stage is Stage.BLOCK and self._blocks:
            return True
        return reader.is_over

    def _bound(self, head: AnswerHead) -> None:
        """Whole answers are bounded by their length, others by what is held of them."""
        if self._bytes_max:
            if head.length > self._bytes_max:
                self.fail(StrangeAnswer(f"an answer of {head.length} bytes where {self._bytes_max} are the bound"))
        elif self._held_bytes > READ_BUFFER_BYTES and not self._is_paused and not self._reader.is_over:
            self._is_paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def _resume(self) -> None:
        if self._is_paused and self.failure is None:
            self._is_paused = False
            cast(asyncio.Transport, self._transport).resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def format_request(method: str, target: str, lines: Sequence[bytes]) -> bytes:
    """A request's head (RFC 9112 §3). lines: headers that were formatted before, each with its end. ValueError for a
    target that would not stay on its line."""
    if not target.isascii() or not target.isprintable() or " " in target:
        raise ValueError("a request's target is printable ASCII")
    return b"".join((method.encode(), b" ", target.encode(), b" HTTP/1.1\r\n", *lines, b"\r\n"))


def format_header(name: str, value: str) -> bytes:
    """A line of a head. ValueError for a value that would not stay on it."""
    if not value.isprintable():
        raise ValueError(f"the value of {name} has characters that no header has")
    return f"{name}: {value}\r\n".encode("latin-1", "replace")
