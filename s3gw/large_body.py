"""A large body of known length, received straight into blocks of up to a MiB, past the HTTP parser.

What comes through uvicorn's protocol is copied three times and more before anybody hashes it (the loop's buffer, the
parser's piece, what is gathered while the application is busy), and the application is woken for each piece. Here the
kernel's copy is the only one, and there is one wake-up a block.

From when the application first asks for the body until the last byte has come, a LargeBody is the protocol of the
connection; then that is the HTTP protocol again, with a new parser. What arrives behind the body is left in the socket
for it. All bounds hold as before: reading pauses while a block waits to be taken, a client that stalls is found by the
same counters, and one that goes away by the same flag.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import MutableMapping
from typing import Any, Protocol, cast

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from cluster.body import BLOCK_BYTES_MAX
from s3gw.borrowed_connection import BorrowedConnection, Owner
from s3gw.digester import batch_bytes
from s3gw.turns import Turn, Turns, takes_turns
from storage.base.blocks import BLOCKS
from storage.crypto.envelope import FRAME_BYTES

LARGE_BYTES_MIN = 256 * 1024
"""still to come: what is less comes in a few pieces, and those are not copied again while the application keeps up"""
START_BYTES_MAX = BLOCK_BYTES_MAX - FRAME_BYTES
"""of what came with the head: it goes into the first block"""
WAKE_BYTES = 256 * 1024
"""the kernel says nothing of less, unless it is all that is left, the window is full or the client is slow"""
FILL_S = 0.5
"""after which a block is handed over as far as it is filled: a slow client is not held in memory, and who reads its
body is told that it lives"""

Message = MutableMapping[str, Any]

_HAS_WAKE_BYTES = sys.platform == "linux"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(Owner, Protocol):
    """What this needs of the HTTP protocol that the connection belongs to."""

    transport: asyncio.Transport
    flow: FlowControl
    cycle: RequestResponseCycle
    """the request that was parsed last"""
    turns: Turns
    """of the bodies that begin in this process"""

    @property
    def scheme(self) -> str | None: ...
    def count_received(self, count: int) -> None: ...
    def renew_parser(self) -> None: ...
    def on_message_complete(self) -> None: ...


def find_large_body(connection: HttpConnection, cycle: RequestResponseCycle) -> LargeBody | None:
    """For a request whose head was just read; None where its body is none for this module. Nothing more is read before
    the application asks for it."""
    if cycle.scope["method"] != "PUT":
        return None
    length = next((int(value) for name, value in cycle.scope["headers"] if name == b"content-length"), 0)
    if length < LARGE_BYTES_MIN:
        return None
    connection.flow.pause_reading()
    return LargeBody(connection, cycle, length)


class LargeBody(BorrowedConnection):
    """`receive` is ASGI's, of this request. Its blocks are nobody else's, and end at multiples of a frame as far as the
    client keeps up."""

    def __init__(self, connection: HttpConnection, cycle: RequestResponseCycle, length: int) -> None:
        super().__init__(connection)
        self._connection = connection
        self._cycle = cycle
        self._length = length
        self._arrived = 0
        """bytes of the body"""
        self._block: memoryview | None = None
        self._filled = 0
        self._size = batch_bytes()
        """of the next block at most"""
        self._is_due = False
        """the block that is being filled has waited for long enough"""
        self._wake_bytes = 1
        """as the socket has it"""
        self._has_begun = self._is_ours = False
        self._turn: Turn | None = None

    async def receive(self) -> Message:
        """The next block, whole but at the end and of a slow client; `http.disconnect` once nobody is there."""
        if not self._has_begun:
            self._has_begun = True
            await self._wait_for_turn()
            self._is_ours = self._take_over()
        if not self._is_ours:
            return cast(Message, await self._cycle.receive())
        await self._wait_for_block()
        if self._is_over:
            return {"type": "http.disconnect"}
        block = self._take_block()
        more = self._arrived < self._length
        if more:
            self._connection.flow.resume_reading()
        else:
            self._is_ours = False
            self._cycle.message_event.clear()
        return {"type": "http.request", "body": block, "more_body": more}

    # ------------------------------------------------------------------ asyncio's callbacks

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_turn()
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._block is None:
            self._new_block()
        assert self._block is not None
        return self._block[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        assert self._block is not None
        self._filled += nbytes
        self._arrived += nbytes
        self._connection.count_received(nbytes)
        left = self._length - self._arrived
        if self._wake_bytes > left:
            self._wake_at(max(left, 1))
        if not left:
            self._end_turn()
            self._give_back()
        elif self._filled == len(self._block):
            self._connection.flow.pause_reading()
            self._cycle.message_event.set()
        elif self._is_due:
            self._cycle.message_event.set()

    # ------------------------------------------------------------------ the connection

    async def _wait_for_turn(self) -> None:
        scope = self._cycle.scope
        client = scope.get("client")
        if client is not None and takes_turns(self._length, client[0], scope["headers"]):
            self._turn = await self._connection.turns.take()

    def _end_turn(self) -> None:
        """At the last byte, or with the connection. Where neither comes the turn ends by itself."""
        if self._turn is not None:
            self._turn.end()

    def _take_over(self) -> bool:
        """False: the body goes on as any other, because all of it was parsed already, or nearly all."""
        connection, cycle = self._connection, self._cycle
        start = cycle.body
        is_usual = not cycle.more_body or connection.cycle is not cycle
        if is_usual or self._is_over or self._length - len(start) < LARGE_BYTES_MIN or len(start) > START_BYTES_MAX:
            return False
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            connection.transport.write(_CONTINUE)
        cycle.body = bytearray()
        self._size = max(self._size, _whole_frames(len(start) + FRAME_BYTES))
        self._new_block()
        assert self._block is not None
        self._block[: len(start)] = start
        self._filled = self._arrived = len(start)
        connection.transport.set_protocol(self)
        self._wake_at(WAKE_BYTES)
        connection.flow.resume_reading()
        return True

    def _give_back(self) -> None:
        """The parser saw the beginning of a body, so the next request gets another one."""
        connection = self._connection
        connection.renew_parser()
        connection.transport.set_protocol(connection)  # type: ignore[arg-type]
        connection.on_message_complete()

    def _wake_at(self, count: int) -> None:
        """Let the kernel report bytes when there are so many. (Nobody knows here how many records of TLS they make.)"""
        if count == self._wake_bytes or not _HAS_WAKE_BYTES or self._connection.scheme != "http":
            return
        transport = self._connection.transport
        if not transport.is_closing() and not self._is_over:
            self._wake_bytes = count
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    # ------------------------------------------------------------------ blocks

    @property
    def _is_over(self) -> bool:
        """Whether nobody sends this body any more, or it was answered without."""
        return self._cycle.disconnected or self._cycle.response_complete

    @property
    def _is_ready(self) -> bool:
        if self._is_over or self._arrived == self._length:
            return True
        return self._block is not None and (self._filled == len(self._block) or (self._is_due and self._filled > 0))

    async def _wait_for_block(self) -> None:
        if self._is_ready:
            return
        timer = asyncio.get_running_loop().call_later(FILL_S, self._hurry)
        try:
            while not self._is_ready:
                self._cycle.message_event.clear()
                await self._cycle.message_event.wait()
        finally:
            timer.cancel()
            self._is_due = False

    def _hurry(self) -> None:
        self._is_due = True
        self._wake_at(1)
        self._cycle.message_event.set()

    def _new_block(self) -> None:
        """As large as clients of this speed fill one, up to the next multiple of a frame."""
        size = self._size - self._arrived % FRAME_BYTES
        self._block = BLOCKS.take(min(size, self._length - self._arrived))
        self._filled = 0

    def _take_block(self) -> memoryview | bytes:
        block, self._block = self._block, None
        assert block is not None
        if self._filled == len(block):
            self._size = batch_bytes()
            self._wake_at(max(1, min(WAKE_BYTES, self._length - self._arrived)))
            return block
        self._size = min(batch_bytes(), _whole_frames(max(FRAME_BYTES, 2 * self._filled)))
        return bytes(block[: self._filled])


def _whole_frames(size_bytes: int) -> int:
    return size_bytes // FRAME_BYTES * FRAME_BYTES
