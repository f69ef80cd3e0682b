"""Calls between simulated processes, through weather: delay, loss, duplication, cuts of one direction or of both.

A call is a request that may never arrive, or late, or twice, and an answer to which the same may happen. What the far
side does, it does in its own process: a stopped one answers when it goes on, a dead one never. Whoever waited is told
by a broken connection, or by nothing at all (and then by a deadline), as it happens.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from storage.base.errors import FrostbyteError
from tests.sim.loop import Process, VirtualLoop
from tests.sim.trace import Trace

T = TypeVar("T")

CUT_RETRY_S = 1.0
CUT_RETRIES_MAX = 40
"""a message that waits for a cut to heal is given up after so many tries"""
DUPLICATE_DELAY_S_MAX = 4.0
"""below the sweeper's margin: nothing that is as late as that may find what it made forgotten"""


class Broken(Exception):
    """The connection was lost. sent: whether the far side may have had the request."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("the connection was lost")
        self.sent = sent


class Weather:
    """What the network does to messages now. Probabilities are per message."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.duplication = 0.0
        self.garbling = 0.0
        """how likely a chunk's bytes arrive with a bit of them changed"""
        self.delay_s = 0.002
        """the mean"""
        self.lateness = 0.0
        """how likely a message is very late"""
        self.late_s = 3.0
        self.slow: dict[str, float] = {}
        """by party: what delays to and from it are multiplied with"""
        self.cuts: set[tuple[str, str]] = set()
        """(from, to): nothing passes"""

    def clear(self) -> None:
        """Fair from now on."""
        self.loss = self.duplication = self.garbling = self.lateness = 0.0
        self.slow.clear()
        self.cuts.clear()


class Network:
    """Knows the present incarnation of every party by its name."""

    def __init__(self, loop: VirtualLoop, generator: random.Random, trace: Trace) -> None:
        self.weather = Weather()
        self.parties: dict[str, Process] = {}
        self.apps: dict[str, Any] = {}
        """what each of them serves, by ASGI"""
        self.defects: list[str] = []
        """exceptions that no code should raise"""
        self.calls = 0
        self.is_closed = False
        """every call fails at once: the end of a run"""
        self.interfere: Callable[[str, str, Process, Process], None] | None = None
        """called with (`delivered` or `served`, label, caller, callee) at the very moment"""
        self._loop = loop
        self._random = generator
        self._trace = trace
        loop.network = self

    async def call(
        self,
        source: Process,
        target: str,
        label: str,
        serve: Callable[[], Awaitable[T]],
        timeout_s: float | None,
        *,
        may_repeat: bool = True,
    ) -> T:
        """Have `serve` run in the process that `target` names. Broken, TimeoutError, and what it raises."""
        if self.is_closed:
            raise Broken(sent=False)
        self.calls += 1
        call = _Call(self._loop.create_future(), source, target, f"{label} #{self.calls}", serve)
        call.connected_to = self.parties.get(target)
        weather = self.weather
        if self._random.random() < weather.loss:
            self._lose(call, "request")
        else:
            self._loop.later(self._delay_s(source.name, target), self._deliver, call, 0)
        if may_repeat and weather.duplication and self._random.random() < weather.duplication:
            again = _Call(self._loop.create_future(), source, target, f"{label} #{self.calls} again", serve)
            self._loop.later(self._random.uniform(0, DUPLICATE_DELAY_S_MAX), self._deliver, again, 0)
        deadline = None if timeout_s is None else self._loop.call_later(timeout_s, call.settle, TimeoutError())
        try:
            return await call.future  # type: ignore[no-any-return]
        finally:
            if deadline is not None:
                deadline.cancel()

    async def carry(self, source: Process, target: str, arrive: Callable[[], None]) -> None:
        """One more piece on a connection that is in use, in order: it arrives after a while, or the connection breaks.
        Broken."""
        tries = 0
        while (source.name, target) in self.weather.cuts:
            tries += 1
            if tries > CUT_RETRIES_MAX:
                raise Broken(sent=True)
            await asyncio.sleep(CUT_RETRY_S)
        if self._random.random() < self.weather.loss:
            raise Broken(sent=True)
        await asyncio.sleep(self._delay_s(source.name, target))
        arrive()

    def garble(self, data: bytes) -> bytes:
        """A chunk's bytes as they arrive."""
        if not self.weather.garbling or not data or self._random.random() >= self.weather.garbling:
            return data
        self._trace.count("garbled")
        at = self._random.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self._random.randrange(8)]) + data[at + 1 :]

    # ------------------------------------------------------------------ on the way

    def _deliver(self, call: _Call, tries: int) -> None:
        if self._is_held_up(call.source.name, call.target, tries, self._deliver, call):
            return
        process = self.parties.get(call.target)
        if process is None or not process.is_alive:
            self._trace.note(call.source.name, f"> {call.target} {call.label}: nobody listens")
            self._settle_later(call, Broken(sent=False))
            return
        if call.connected_to is not None and call.connected_to is not process:
            self._settle_later(call, Broken(sent=True))  # the connection ended with who had accepted it
            return
        process.on_death[call] = lambda: self._server_died(call)
        process.start(self._serve(call, process))
        if self.interfere is not None:
            self.interfere("delivered", call.label, call.source, process)

    async def _serve(self, call: _Call, process: Process) -> None:
        outcome: Any
        try:
            outcome = await call.serve()
        except FrostbyteError as error:
            outcome = error
        except Broken as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - told as a defect, and to the caller
            outcome = error
            self.defects.append(f"{process.name}: {call.label}: {error!r}")
        finally:
            process.on_death.pop(call, None)
        shown = f": {type(outcome).__name__}" if isinstance(outcome, Exception) else ""
        self._trace.note(process.name, f"< {call.source.name} {call.label}{shown}")
        if self.interfere is not None:
            self.interfere("served", call.label, call.source, process)
        if not process.is_alive:
            return
        if self._random.random() < self.weather.loss:
            self._lose(call, "answer")
        else:
            self._loop.later(self._delay_s(process.name, call.source.name), self._answer, call, 0, outcome)

    def _answer(self, call: _Call, tries: int, outcome: Any) -> None:
        if not self._is_held_up(call.target, call.source.name, tries, self._answer, call, outcome):
            call.settle(outcome)

    def _is_held_up(
        self, sender: str, receiver: str, tries: int, again: Callable[..., None], call: _Call, *rest: Any
    ) -> bool:
        """Whether a cut is in the way: then the message comes later, or not at all."""
        if (sender, receiver) not in self.weather.cuts:
            return False
        if tries < CUT_RETRIES_MAX:
            self._loop.later(CUT_RETRY_S, again, call, tries + 1, *rest)
        return True

    def _lose(self, call: _Call, what: str) -> None:
        """Silently, or with the connection."""
        self._trace.note(call.source.name, f"> {call.target} {call.label}: the {what} is lost")
        self._trace.count(f"lost {what}")
        if self._random.random() < 0.6:
            self._settle_later(call, Broken(sent=True))

    def _server_died(self, call: _Call) -> None:
        if self._random.random() < 0.7:
            self._settle_later(call, Broken(sent=True))

    def _settle_later(self, call: _Call, outcome: Any) -> None:
        self._loop.later(self._delay_s(call.target, call.source.name), call.settle, outcome)

    def _delay_s(self, sender: str, receiver: str) -> float:
        weather = self.weather
        delay_s = self._random.expovariate(1 / weather.delay_s)
        if weather.lateness and self._random.random() < weather.lateness:
            delay_s += self._random.uniform(0, weather.late_s)
        if weather.slow:
            delay_s *= weather.slow.get(sender, 1.0) * weather.slow.get(receiver, 1.0)
        return delay_s


class _Call:
    """One request. Compared by identity."""

    __slots__ = ("connected_to", "future", "label", "serve", "source", "target")

    def __init__(
        self,
        future: asyncio.Future[Any],
        source: Process,
        target: str,
        label: str,
        serve: Callable[[], Awaitable[Any]],
    ) -> None:
        self.future = future
        self.source = source
        self.target = target
        self.label = label
        self.serve = serve
        self.connected_to: Process | None = None

    def settle(self, outcome: Any) -> None:
        """Once; whoever does not wait any more is not told."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            self.future.exception()  # nobody may be waiting: of a second delivery, never
        else:
            self.future.set_result(outcome)
