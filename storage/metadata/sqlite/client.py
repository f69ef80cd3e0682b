"""A worker's side of the metadata socket: many calls in flight on one connection, which is made again when it breaks.

A call whose answer was lost (the owner died, the connection broke, the deadline passed) raises Unavailable with details
outcome=unknown: it may have been committed. The caller answers 500 or 503 and its client asks again; the caller must
not delete the chunks of such a commit, but leave them to the sweeper or to ReleaseBlobs, which spares what a row
references. Unavailable without that detail: not applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from storage.base.errors import FrostbyteError, Unavailable
from storage.metadata.commands import Command
from storage.metadata.sqlite.configuration_page import ConfigurationPage
from storage.metadata.sqlite.wire import FrameReader, ProtocolError, decode_outcome, encode_command

IN_FLIGHT_MAX = 1000
"""below what the owner takes from one connection"""

CALL_DEADLINE_S = 30.0
RECONNECT_WAIT_S = 5.0
"""how long a call waits for a broken connection to come back"""

_BACK_OFF_FIRST_S = 0.02
_BACK_OFF_MAX_S = 1.0
_DEADLINE_TICK_S = 1.0


OnOutcome = Callable[[Any], None]
"""takes the result of a command, or a FrostbyteError as a value; must not raise"""


class MetadataClient:
    """One per process; `apply` may be called by any number of tasks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: _Connection | None = None
        self._page: ConfigurationPage | None = None
        """of the owner that is connected"""
        self._connected = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False

    async def connect(self, deadline_s: float) -> None:
        """Wait until the owner answers. Unavailable past the deadline."""
        self._reconnect()
        try:
            await asyncio.wait_for(self._connected.wait(), deadline_s)
        except TimeoutError:
            await self.close()
            raise Unavailable(f"no metadata owner on {self._path}") from None

    async def apply(self, command: Command) -> Any:
        """As Metadata.apply; see the module on unknown outcomes."""
        connection = self._connection
        if connection is None:
            connection = await self._wait_for_connection()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.call(command, partial(_settle, answer))
        outcome = await answer
        if isinstance(outcome, FrostbyteError):
            raise outcome
        return outcome

    def submit(self, command: Command, on_outcome: OnOutcome) -> None:
        """As AtOnce.submit. Unavailable (raised) also where `apply` would wait for the connection to come back."""
        if self._connection is None:
            raise Unavailable("the metadata owner does not answer")
        self._connection.call(command, on_outcome)

    def configuration_sequence(self) -> int | None:
        """As the owner tells it to those that are connected; None: it is in the database."""
        return None if self._page is None else self._page.sequence

    async def close(self) -> None:
        """Calls in flight end with an unknown outcome."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._reconnecting
        if self._connection is not None:
            self._connection.abort()

    async def _wait_for_connection(self) -> _Connection:
        try:
            await asyncio.wait_for(self._connected.wait(), RECONNECT_WAIT_S)
        except TimeoutError:
            raise Unavailable("the metadata owner does not answer") from None
        if self._connection is None:
            raise Unavailable("the metadata owner does not answer")
        return self._connection

    def _reconnect(self) -> None:
        self._connection = None
        if self._page is not None:
            self._page.close()
            self._page = None
        self._connected.clear()
        if not self._closed:
            self._reconnecting = asyncio.get_running_loop().create_task(self._keep_connecting())

    async def _keep_connecting(self) -> None:
        back_off_s = _BACK_OFF_FIRST_S
        while True:
            with suppress(OSError):
                _, connection = await asyncio.get_running_loop().create_unix_connection(
                    lambda: _Connection(self._reconnect), str(self._path)
                )
                self._connection = connection
                self._page = ConfigurationPage.open(self._path)
                self._connected.set()
                return
            await asyncio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, _BACK_OFF_MAX_S)


class _Connection(asyncio.Protocol):
    """One connection with its calls in flight: request id → (command type, what is told the outcome, deadline).

    Calls of one turn of the event loop leave in one write: it wakes the owner once, and they are in one group."""

    def __init__(self, lost: Any) -> None:
        self._lost = lost
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, tuple[type[Command], OnOutcome, float]] = {}
        self._last_id = 0
        self._unsent: list[bytes] = []
        """at most the calls in flight"""
        self._ticking = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop derives its own

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        for _, on_outcome, _ in self._drain():
            on_outcome(Unavailable("the metadata owner hung up", outcome="unknown"))
        self._lost()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                call = self._calls.get(frame.request_id)
                if call is None:
                    continue
                outcome = decode_outcome(frame, call[0])
                del self._calls[frame.request_id]
                call[1](outcome)
        except ProtocolError:  # this call's outcome is as unknown as that of the others in flight
            self.abort()

    def call(self, command: Command, on_outcome: OnOutcome) -> None:
        """Unavailable (raised): not sent."""
        if self._transport is None or len(self._calls) >= IN_FLIGHT_MAX:
            raise Unavailable("the metadata connection is broken or full")
        self._last_id += 1
        data = encode_command(self._last_id, command)
        self._calls[self._last_id] = (type(command), on_outcome, self._loop.time() + CALL_DEADLINE_S)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(data)
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(_DEADLINE_TICK_S, self._expire)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        """What is still unsent when the connection breaks is as unknown as the rest: it is told so all the same."""
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(b"".join(unsent))

    def _expire(self) -> None:
        """Calls are in the order of their deadlines. An owner that misses one is not trusted with the others."""
        self._ticking = bool(self._calls)
        if not self._calls:
            return
        self._loop.call_later(_DEADLINE_TICK_S, self._expire)
        oldest = next(iter(self._calls.values()))
        if oldest[2] < self._loop.time():
            self.abort()

    def _drain(self) -> Iterator[tuple[type[Command], OnOutcome, float]]:
        calls, self._calls = self._calls, {}
        return iter(calls.values())


def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    if not answer.done():
        answer.set_result(outcome)
