"""An event loop whose time is virtual, and processes that can be stopped and killed between any two awaits.

Nothing ever waits: when no callback is ready, time jumps to the next timer. A *process* is a mark in the context that
its tasks run in, and is inherited by whatever they start. The loop looks at the mark before each callback: those of a
stopped process are kept until it goes on (timers included, which are then late, as after SIGSTOP), those of a dead one
for ever. So a crash runs no `finally` and no `except`, as kill -9 does.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TASKS_PRUNED_AT = 4_096
CANCELLED_TIMERS_MAX = 50

_process: contextvars.ContextVar[Process | None] = contextvars.ContextVar("simulated process", default=None)


class ProcessState(enum.Enum):
    """What the loop does with callbacks of the process."""

    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"


class Stuck(Exception):
    """Everything waits for something that will never happen."""


class Process:
    """One incarnation of a simulated process."""

    def __init__(self, loop: VirtualLoop, name: str, place: Any = None) -> None:
        self.name = name
        self.place = place
        """where it runs: what outlives it"""
        self.state = ProcessState.RUNNING
        self.held: list[asyncio.Handle] = []
        """callbacks that became ready since it was stopped or killed"""
        self.stopped_s = float("-inf")
        """until when it was stopped last"""
        self.on_death: dict[object, Callable[[], None]] = {}
        """by whoever wants to know, in the order of arrival"""
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(_process.set, self)
        loop.processes.append(self)

    @property
    def is_alive(self) -> bool:
        """Also while it is stopped."""
        return self.state is not ProcessState.DEAD

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a task in this process."""
        return self._loop.create_task(work, context=self._context.copy())

    def stop(self) -> None:
        """As SIGSTOP."""
        if self.state is ProcessState.RUNNING:
            self.state = ProcessState.STOPPED
            self.stopped_s = float("inf")

    def resume(self) -> None:
        """As SIGCONT: what became ready meanwhile happens now, in its order."""
        if self.state is ProcessState.STOPPED:
            self.stopped_s = self._loop.time()
            self.thaw()

    def kill(self) -> None:
        """As SIGKILL. Its tasks stay where they are and never go on."""
        if self.is_alive:
            if self.state is ProcessState.STOPPED:
                self.stopped_s = self._loop.time()
            self.state = ProcessState.DEAD
            for told in list(self.on_death.values()):
                told()
            self.on_death.clear()

    def thaw(self) -> None:
        """At the end of everything also for a dead one, so that its tasks can be ended."""
        self.state = ProcessState.RUNNING
        held, self.held = self.held, []
        self._loop.give_back(held)


def require_process() -> Process:
    """In which this code runs."""
    process = _process.get()
    assert process is not None, "this belongs to no process"
    return process


def require_loop() -> VirtualLoop:
    """That this code runs on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of something that is written as a coroutine and waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("it waits for something")


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs in one thread; what is given to an executor runs at once."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        """in place of those of BaseEventLoop, which are compared by a method of theirs"""
        self._timers_set = 0
        self._kept: list[asyncio.Task[Any]] = []
        self.network: Any = None
        """over which processes of this loop call each other"""
        self.processes: list[Process] = []
        """all that there ever were"""
        self.outside = contextvars.copy_context()
        """for callbacks that belong to no process"""
        self.outside.run(_process.set, None)
        self.steps = 0
        """callbacks that were run"""
        self.on_end: list[Callable[[], None]] = []
        """called when everything is over"""

    def time(self) -> float:
        return self._now_s

    def give_back(self, held: list[asyncio.Handle]) -> None:
        """Callbacks that a process was kept from."""
        self._ready.extend(held)

    def later(self, delay_s: float, callback: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """As call_later, whatever process asks for it."""
        return self.call_later(delay_s, callback, *arguments, context=self.outside)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Of timers of one moment the one that was set first comes first."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, timer))
        timer._scheduled = True
        return timer

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        """Kept alive until it is done: the collector would otherwise run the cleanup of tasks that a kill ended."""
        task = super().create_task(coro, name=name, context=context)
        self._kept.append(task)
        if len(self._kept) >= TASKS_PRUNED_AT and len(self._kept) % TASKS_PRUNED_AT == 0:
            self._kept = [kept for kept in self._kept if not kept.done()]
        return task

    def unwind(self, rounds_max: int = 10_000) -> None:
        """End whatever is left, once every call fails: cancelled until it is over."""
        for process in self.processes:
            process.thaw()
        for _ in range(rounds_max):
            self._kept = [task for task in self._kept if not task.done()]
            if not self._kept:
                break
            for task in self._kept:
                task.cancel()
            self.run_until_complete(asyncio.sleep(0.1))
        else:
            raise Stuck(f"tasks that cannot be ended: {self._kept[:4]}")
        self.run_until_complete(self.shutdown_asyncgens())
        for told in self.on_end:
            told()

    # ------------------------------------------------------------------ what BaseEventLoop leaves open

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whatever it raises is its caller's
            future.set_exception(error)
        return future

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits."""

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if self._timer_cancelled_count > CANCELLED_TIMERS_MAX:
            self._drop_cancelled()
        if not ready:
            while timers and timers[0][2]._cancelled:
                self._timer_cancelled_count -= 1
                heapq.heappop(timers)[2]._scheduled = False
            if timers:
                self._now_s = max(self._now_s, timers[0][0])
            elif not self._stopping:
                raise Stuck("no callback is ready and no timer runs")
        while timers and timers[0][0] <= self._now_s:
            handle = heapq.heappop(timers)[2]
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_process)
            if process is not None and process.state is not ProcessState.RUNNING:
                process.held.append(handle)
                continue
            self.steps += 1
            handle._run()

    def _drop_cancelled(self) -> None:
        kept = []
        for entry in self._timers:
            entry[2]._scheduled = not entry[2]._cancelled
            if entry[2]._scheduled:
                kept.append(entry)
        self._timers[:] = kept
        heapq.heapify(self._timers)
        self._timer_cancelled_count = 0
