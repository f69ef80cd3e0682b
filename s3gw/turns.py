"""Turns of the bodies that a program of this machine sends side by side: one is received after the other.

Where all of ten parts come equally fast, they are answered at the same moment. Then the program, which has the same
processors, makes the next ten while the server has nothing to do, and waits when the server has; and while they come,
its ten threads wake each other for every piece. (Seen of aws-cli: heads of ten parts within 100 ms, then none for
200.) In turns the first part is answered while the others come, and the threads of those that wait for their
`100 Continue` sleep.

A turn is a courtesy and no lock. It ends with the last byte of its body, and after TURN_S in any case, so that a slow
body holds nobody up for long; nobody waits for longer than WAIT_S_MAX, nor behind WAITING_MAX others. What a proxy of
this machine passes on comes from afar, at a pace that waiting would only add to: it takes none.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Iterable

BODY_BYTES_MIN, BODY_BYTES_MAX = 4 << 20, 16 << 20
"""what takes turns: parts as most programs cut them. A smaller body is there at once, a larger one comes for long"""
TURN_S = 0.1
"""8 MiB come in 20 ms over loopback, in 60 on busy processors"""
WAIT_S_MAX = 0.25
WAITING_MAX = 8
"""of one worker: in a crowd its members are not in step"""

_OF_PROXIES = frozenset((b"x-forwarded-for", b"forwarded", b"via"))


class Turns:
    """Of one worker; used on its event loop."""

    def __init__(self) -> None:
        self._holder: Turn | None = None
        self._waiting: deque[asyncio.Future[Turn | None]] = deque()

    async def take(self) -> Turn | None:
        """Wait for the turn, which the caller ends. None: begin without, as the wait was long or the crowd large."""
        if self._holder is None:
            return self._begin()
        if len(self._waiting) >= WAITING_MAX:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Turn | None] = loop.create_future()
        self._waiting.append(future)
        timer = loop.call_later(WAIT_S_MAX, self._give_up, future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._give_up(future)
            if (turn := future.result()) is not None:
                turn.end()
            raise
        finally:
            timer.cancel()

    def pass_on(self, turn: Turn) -> None:
        """The turn has ended: the next is that of who has waited for longest."""
        if turn is self._holder:
            self._holder = None
            if self._waiting:
                self._waiting.popleft().set_result(self._begin())

    def _begin(self) -> Turn:
        self._holder = Turn(self)
        return self._holder

    def _give_up(self, future: asyncio.Future[Turn | None]) -> None:
        if not future.done():
            self._waiting.remove(future)
            future.set_result(None)


class Turn:
    """Of one body. `end` may be called again."""

    __slots__ = ("_timer", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self.end)

    def end(self) -> None:
        """Let the next begin."""
        self._timer.cancel()
        self._turns.pass_on(self)


def takes_turns(length: int, address: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a body of `length` bytes from there does. address: an IP address, or nothing. headers: as ASGI has
    them, with names in small letters."""
    if not BODY_BYTES_MIN <= length <= BODY_BYTES_MAX or any(name in _OF_PROXIES for name, _ in headers):
        return False
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
