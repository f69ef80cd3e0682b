"""Bytes in flight: one bound for a whole process, whatever the number and the size of its requests.

Whoever holds sealed bytes on their way to datanodes takes them out of the budget and gives them back when they have
left. Waiters are served strictly in order, so that a large request is never overtaken for ever by small ones.

Bytes that were sent but are kept in case a replica must be replaced are a loan (`lend`): the moment somebody would
have to wait, loans are called in, the oldest first. A client that stalls can therefore hold a loan and nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from storage.base.errors import Unavailable

CAPACITY_BYTES_DEFAULT = 64 << 20
WAITERS_MAX = 4096
"""more requests than this waiting for memory are refused at once (503) instead of queued"""

CallIn = Callable[[], None]
"""Gives what was lent back through `release`; called at most once per loan."""

_Waiter = tuple[asyncio.Future[None], int]


class ByteBudget:
    """A counting semaphore over bytes, first come first served."""

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES_DEFAULT, waiters_max: int = WAITERS_MAX) -> None:
        self.capacity_bytes = capacity_bytes
        self.held_bytes = 0
        self.held_bytes_peak = 0
        self._waiters_max = waiters_max
        self._waiters: deque[_Waiter] = deque()
        self._wanted_bytes = 0
        self._loans: dict[object, CallIn] = {}

    @property
    def waiting(self) -> int:
        """How many requests wait for bytes."""
        return len(self._waiters)

    def try_acquire(self, size_bytes: int) -> bool:
        """Take the bytes if that needs no wait and passes nobody."""
        if self._waiters or self.held_bytes + size_bytes > self.capacity_bytes:
            return False
        self._take(size_bytes)
        return True

    async def acquire(self, size_bytes: int) -> None:
        """Take the bytes, waiting for one's turn. Unavailable when the queue is full; ValueError above the capacity."""
        if size_bytes > self.capacity_bytes:
            raise ValueError(f"{size_bytes} bytes will never fit a budget of {self.capacity_bytes}")
        if self.try_acquire(size_bytes):
            return
        self._call_in(size_bytes)
        if self.try_acquire(size_bytes):
            return
        if len(self._waiters) >= self._waiters_max:
            raise Unavailable("too many requests wait for memory")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (turn, size_bytes)
        self._waiters.append(entry)
        self._wanted_bytes += size_bytes
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._withdraw(entry)
            else:
                self.release(size_bytes)  # the turn came in the moment of the cancellation
            raise

    def release(self, size_bytes: int) -> None:
        """Give bytes back and serve whoever fits now, in order."""
        assert 0 <= size_bytes <= self.held_bytes, "more was given back than was taken"
        self.held_bytes -= size_bytes
        self._serve()

    def lend(self, holder: object, call_in: CallIn) -> None:
        """Announce that `holder` can give bytes back at any time. Only bytes that are in the budget can be lent. Where
        somebody waits already it is called in at once."""
        self._loans[holder] = call_in
        if self._waiters:
            self._call_in(0)

    def settle(self, holder: object) -> None:
        """The loan is over; a no-op when it was called in."""
        self._loans.pop(holder, None)

    def _call_in(self, size_bytes: int) -> None:
        """Call loans in until everybody who waits, and `size_bytes` more, would fit or nothing is lent any more."""
        while self._loans and self.held_bytes + self._wanted_bytes + size_bytes > self.capacity_bytes:
            self._loans.pop(next(iter(self._loans)))()

    def _withdraw(self, entry: _Waiter) -> None:
        if entry in self._waiters:
            self._waiters.remove(entry)
            self._wanted_bytes -= entry[1]
        self._serve()  # those behind may fit where this one did not

    def _serve(self) -> None:
        while self._waiters:
            turn, size_bytes = self._waiters[0]
            if not turn.cancelled():
                if self.held_bytes + size_bytes > self.capacity_bytes:
                    return
                self._take(size_bytes)
                turn.set_result(None)
            self._waiters.popleft()
            self._wanted_bytes -= size_bytes

    def _take(self, size_bytes: int) -> None:
        self.held_bytes += size_bytes
        self.held_bytes_peak = max(self.held_bytes_peak, self.held_bytes)
