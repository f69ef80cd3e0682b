"""The body of a PUT on the short way, while it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from s3gw.short_write import ShortWrite
from storage.base.blocks import BLOCKS

GATHERING_S_MAX = 1.0
"""from the head to the last byte; who is slower takes the road, which is patient"""


class Gathering:
    """Hashed block by block, while each is in the processor's cache. `stop_timer` or `end` must be called."""

    __slots__ = ("_beyond", "_first", "_room", "_taken", "_timer", "_with_head", "write")

    def __init__(
        self,
        write: ShortWrite,
        data: bytes,
        body: memoryview,
        loop: asyncio.AbstractEventLoop,
        give_up: Callable[[], None],
    ) -> None:
        """data: the first that came, head and `body`, which the write has taken. The write holds room for all."""
        self.write = write
        self._first = data
        self._with_head = self._taken = len(body)
        self._room = BLOCKS.take(write.length)
        self._room[: len(body)] = body
        self._beyond = b""
        """what ends behind the body"""
        self._timer = loop.call_later(GATHERING_S_MAX, give_up)

    @property
    def missing_bytes(self) -> int:
        """Of the body; below 0: more has come than belongs to it."""
        return self.write.length - self._taken - len(self._beyond)

    @property
    def body(self) -> memoryview:
        """Once it is whole."""
        return self._room

    @property
    def blocks(self) -> list[bytes]:
        """All bytes, in the order in which they came."""
        return [self._first, bytes(self._room[self._with_head : self._taken]), self._beyond]

    def take(self, block: bytes) -> None:
        """The next bytes."""
        end = self._taken + len(block)
        if end > self.write.length:
            self._beyond = block
            return
        self._room[self._taken : end] = block
        self._taken = end
        self.write.take(block)

    def stop_timer(self) -> None:
        """The write goes on without this."""
        self._timer.cancel()

    def end(self) -> None:
        """The write is given up."""
        self._timer.cancel()
        self.write.give_up()
