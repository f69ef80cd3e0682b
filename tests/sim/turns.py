"""Threads of production code that run by turns: each goes on only while the loop waits for it, until it waits itself.

So that a run with threads is the same to its last event. What a thread waits for (a queue, an event, a coroutine of
the loop) is a future of the loop, and its next turn a callback in the context of the process that started it: the
thread of a stopped process waits until that goes on, and that of a dead one for ever.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tests.sim.loop import require_loop, require_process

T = TypeVar("T")

_here = threading.local()
"""turn: the SimThread that this thread is"""


class _OverError(BaseException):
    """Ends a thread: nothing that it runs catches this."""


class SimThread:
    """In place of threading.Thread."""

    def __init__(self, *, target: Callable[[], object], name: str = "", daemon: bool = False) -> None:
        self._target = target
        self._go, self._gave_way = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._context = contextvars.copy_context()
        """of its turns; the thread is in a copy of it"""
        self._is_over = False
        """at the end of everything, and with the death of its process: what it works with is closed then"""

    def start(self) -> None:
        """Its first turn comes soon."""
        self._loop = require_loop()
        self._loop.on_end.append(self._end)
        require_process().on_death[self] = self._die
        self._loop.call_soon(self._take_turn, self._thread.start)

    def wait_for(self, future: asyncio.Future[T]) -> T:
        """On this thread: let the loop go on until the future is done."""
        future.add_done_callback(lambda _: self._take_turn(self._go.release), context=self._context)
        self._gave_way.release()
        self._go.acquire()
        if self._is_over or future.cancelled():
            raise _OverError
        return future.result()

    def _take_turn(self, begin: Callable[[], object]) -> None:
        begin()
        self._gave_way.acquire()

    def _run(self) -> None:
        _here.turn = self
        try:
            if not self._is_over:
                self._context.copy().run(self._target)
        except _OverError:
            pass
        except Exception as error:  # noqa: BLE001 - the loop waits for this thread, and says what it ended with
            if not self._is_over:
                self._loop.call_exception_handler({"message": f"{self._thread.name} ended", "exception": error})
        finally:
            self._gave_way.release()

    def _die(self) -> None:
        self._is_over = True

    def _end(self) -> None:
        """At the end of everything."""
        self._is_over = True
        if self._thread.is_alive():
            self._go.release()
            self._thread.join()


class SimQueue(Generic[T]):
    """In place of queue.SimpleQueue; one thread takes from it."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._loop = require_loop()
        self._waiting: asyncio.Future[None] | None = None

    def put(self, item: T) -> None:
        self._items.append(item)
        _settle(self._waiting)

    def get(self, timeout: float | None = None) -> T:
        """queue.Empty after the timeout."""
        if not self._items:
            self._waiting = self._loop.create_future()
            if timeout is not None:
                self._loop.call_later(timeout, _settle, self._waiting)
            _here.turn.wait_for(self._waiting)
        return self.get_nowait()

    def get_nowait(self) -> T:
        """queue.Empty."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)


class SimEvent:
    """In place of threading.Event; one thread waits for it."""

    def __init__(self) -> None:
        self._loop = require_loop()
        self._is_set = False
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._is_set = True
        _settle(self._waiting)

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self) -> bool:
        if not self._is_set:
            self._waiting = self._loop.create_future()
            _here.turn.wait_for(self._waiting)
        return True


class Outcome(Generic[T]):
    """Of a coroutine that a thread has started on the loop."""

    def __init__(self, task: asyncio.Task[T]) -> None:
        self._task = task

    def result(self) -> T:
        """Waits for it."""
        turn: SimThread = _here.turn
        return turn.wait_for(self._task)


def run_on_loop(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> Outcome[T]:
    """In place of asyncio.run_coroutine_threadsafe."""
    return Outcome(loop.create_task(work))


class Threading:
    """In place of the module threading."""

    Thread = SimThread
    Event = SimEvent
    Lock = staticmethod(threading.Lock)


class Queues:
    """In place of the module queue."""

    SimpleQueue = SimQueue
    Empty = queue.Empty


def _settle(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
