"""The body of a PUT on the short way, while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from s3gw.short_write import ShortWrite

GATHERING_S_MAX = 1.0
"""from the head to the last byte; who is slower takes the road, which is patient"""


class Gathering:
    """Hashed block by block, while each is in the processor's cache. `stop_timer` or `end` must be called."""

    __slots__ = ("_bodies", "_timer", "blocks", "missing_bytes", "write")

    def __init__(
        self,
        write: ShortWrite,
        data: bytes,
        body: memoryview,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[], None],
    ) -> None:
        """data: the first that came, head and `body`, which the write has taken. The write has room for all."""
        self.write = write
        self.blocks = [data]
        """as they came"""
        self.missing_bytes = write.length - len(body)
        """below 0: more has come than belongs to it"""
        self._bodies: list[bytes | memoryview] = [body]
        self._timer = loop.call_later(GATHERING_S_MAX, give_up)

    def take(self, block: bytes) -> None:
        """The next bytes."""
        self.missing_bytes -= len(block)
        self.blocks.append(block)
        if self.missing_bytes >= 0:
            self.write.take(block)
            self._bodies.append(block)

    def join(self) -> memoryview:
        """The whole body."""
        return memoryview(b"".join(self._bodies))

    def stop_timer(self) -> None:
        """The write goes on without this."""
        self._timer.cancel()

    def end(self) -> None:
        """The write is given up."""
        self._timer.cancel()
        self.write.give_up()
