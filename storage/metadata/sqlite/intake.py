"""What reaches the writer's thread: commands out of the connections that it reads itself, and what others put in.

The writer reads its sockets between two groups, and answers into them after a commit, without an event loop or another
thread in between: a command's bytes wait in the kernel while a group is committed, and all that came meanwhile is the
next group. Handing commands and answers from thread to thread cost a PUT as much as two of its statements, and each
group two waits for a processor that others were using.

Only processes of the same user get in: the socket is 0600 and the peer's uid is checked (SO_PEERCRED).
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import select
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from storage.base.errors import Unavailable
from storage.metadata.commands import Command
from storage.metadata.sqlite.wire import Frame, FrameReader, ProtocolError, decode_command, encode_outcome

CONNECTIONS_MAX = 256
IN_FLIGHT_PER_CONNECTION_MAX = 1024
READ_BYTES = 64 << 10
"""of one connection at a time: with CONNECTIONS_MAX the bound of what is read and not applied, but for one unfinished
frame of each"""
HANG_UP_S = 1.0
"""at the end, for answers that peers have not taken yet"""

_PEER_CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Where answers go; a batch holds all answers of one group for this sink."""

    def answer(self, batch: list[tuple[Any, Any]]) -> None:
        """(ticket, outcome) pairs; an outcome is the command's result, or a FrostbyteError. Of a Peer on the writer's
        thread, of anybody else on the event loop."""
        ...


class Submission:
    """A command on its way, with what its steps gave so far."""

    __slots__ = ("command", "outcomes", "position", "sink", "size_bytes", "ticket")

    def __init__(self, command: Command, sink: Sink, ticket: Any, size_bytes: int) -> None:
        self.command = command
        self.sink = sink
        self.ticket = ticket
        self.size_bytes = size_bytes
        self.position = 0
        self.outcomes: list[Any] = []


class Hold:
    """The writer waits between two groups while somebody else uses its connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, released: threading.Event) -> None:
        self.reached: asyncio.Future[None] = loop.create_future()
        self.released = released


class Intake:
    """A queue.SimpleQueue for its one reader that is fed by connections, too. `put` on any thread, all else on the
    writer's."""

    def __init__(self, listening: socket.socket, refusal: Callable[[Command], str]) -> None:
        """listening: owned from here on. refusal: why a command is not taken now; empty when it is."""
        self.refusal = refusal
        self.ready: deque[Any] = deque()
        self.selector = selectors.DefaultSelector()
        self.peers: set[Peer] = set()
        self._listening = listening
        self._put: deque[Any] = deque()
        self._is_asleep = False
        self._woken, self._waking = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waking, False)
        listening.setblocking(False)
        self.selector.register(listening, selectors.EVENT_READ, self._accept)
        self.selector.register(self._woken, selectors.EVENT_READ, self._wake)

    def put(self, arrival: Any) -> None:
        """Behind what was put before."""
        self._put.append(arrival)
        if self._is_asleep:
            with suppress(BlockingIOError):  # it was woken often enough
                os.write(self._waking, b"\0")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Waits for the next; queue.Empty past a timeout, and before it when a connection had no whole command."""
        if not self.ready and not block:
            self._look(0)
        elif not self.ready and timeout is not None:
            select.select([self.selector.fileno()], [], [], timeout)  # a selector itself waits whole milliseconds
            self._look(0)
        else:
            while not self.ready:
                self._look(None)
        if not self.ready:
            raise queue.Empty
        return self.ready.popleft()

    def get_nowait(self) -> Any:
        """queue.Empty when there is nothing."""
        return self.get(block=False)

    def qsize(self) -> int:
        """How many there are; 0 only when nothing is to be had anywhere."""
        if not self.ready:
            self._look(0)
        return len(self.ready)

    def close(self) -> None:
        """After the last group: refuse what was read and not taken, give answers a moment to be taken, hang up."""
        for arrival in self.ready:
            if isinstance(arrival, Submission):
                arrival.sink.answer([(arrival.ticket, Unavailable("the metadata owner is stopping"))])
        until_s = time.monotonic() + HANG_UP_S
        while any(peer.unsent for peer in self.peers) and (left_s := until_s - time.monotonic()) > 0:
            for key, mask in self.selector.select(left_s):
                if mask & selectors.EVENT_WRITE:
                    key.data(mask)
                else:
                    self.selector.unregister(key.fileobj)
        for peer in list(self.peers):
            peer.hang_up()
        self.selector.close()
        self._listening.close()
        os.close(self._woken)
        os.close(self._waking)

    def _look(self, wait_s: float | None) -> None:
        self._is_asleep = True  # before what was put is looked at, so that no `put` goes unseen
        events = self.selector.select(0 if self._put else wait_s)
        self._is_asleep = False
        while self._put:
            self.ready.append(self._put.popleft())
        for key, mask in events:
            key.data(mask)

    def _wake(self, _: int) -> None:
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _accept(self, _: int) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError as error:  # it went away, or there are too many files
            if not isinstance(error, BlockingIOError):
                _log.warning("metadata socket: %s", error)
            return
        connection.setblocking(False)
        uid = _peer_uid(connection)
        if uid != os.geteuid() or len(self.peers) >= CONNECTIONS_MAX:
            _log.warning("metadata socket: refused a peer of uid %d beside %d others", uid, len(self.peers))
            connection.close()
            return
        peer = Peer(self, connection)
        self.peers.add(peer)
        self.selector.register(connection, selectors.EVENT_READ, peer.serve)


class Peer:
    """One connection, and the sink of its commands' answers; a ticket is a request id."""

    def __init__(self, intake: Intake, connection: socket.socket) -> None:
        self.unsent = bytearray()
        """answers that it does not take: as long as there are any, no command of it is read"""
        self._intake = intake
        self._connection = connection
        self._reader = FrameReader()
        self._in_flight = 0
        self._is_open = True

    def serve(self, mask: int) -> None:
        """What the selector found."""
        try:
            if mask & selectors.EVENT_WRITE:
                self._send_rest()
            else:
                self._read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.hang_up()
        except Exception:  # noqa: BLE001 - one peer's bytes must not stop the writer
            _log.exception("metadata socket: closed a connection")
            self.hang_up()

    def answer(self, batch: list[tuple[Any, Any]]) -> None:
        self._in_flight -= len(batch)
        self._send(b"".join([encode_outcome(ticket, outcome) for ticket, outcome in batch]))

    def hang_up(self) -> None:
        """What is in flight is applied all the same."""
        if self._is_open:
            self._is_open = False
            self._intake.peers.discard(self)
            with suppress(KeyError):
                self._intake.selector.unregister(self._connection)
            self._connection.close()

    def _read(self) -> None:
        data = self._connection.recv(READ_BYTES)
        if not data:
            self.hang_up()
            return
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except ProtocolError as error:
            _log.warning("metadata socket: closed a connection: %s", error)
            self.hang_up()

    def _take(self, frame: Frame) -> None:
        command = decode_command(frame)
        is_full = self._in_flight >= IN_FLIGHT_PER_CONNECTION_MAX
        refusal = "too many writes in flight on this connection" if is_full else self._intake.refusal(command)
        if refusal:
            self._send(encode_outcome(frame.request_id, Unavailable(refusal)))
        else:
            self._in_flight += 1
            self._intake.ready.append(Submission(command, self, frame.request_id, len(frame.body)))

    def _send(self, data: bytes) -> None:
        if not self._is_open:
            return
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self._connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.hang_up()
            return
        if sent < len(data):
            self.unsent += memoryview(data)[sent:]
            self._intake.selector.modify(self._connection, selectors.EVENT_WRITE, self.serve)

    def _send_rest(self) -> None:
        del self.unsent[: self._connection.send(self.unsent)]
        if not self.unsent:
            self._intake.selector.modify(self._connection, selectors.EVENT_READ, self.serve)


def _peer_uid(connection: socket.socket) -> int:
    """Of the process that connected, as the kernel recorded it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(raw)[1])
