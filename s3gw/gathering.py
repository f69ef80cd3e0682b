"""The body of a PUT on the short way, while it comes: received straight into memory that is used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, cast

from s3gw.borrowed_connection import BorrowedConnection, Owner
from s3gw.short_write import ShortWrite
from storage.base.blocks import BLOCKS

GATHERING_S_MAX = 1.0
"""from the head to the last byte; who is slower takes the road, which is patient"""


class Connection(Owner, Protocol):
    """What this needs of the HTTP protocol that the connection belongs to."""

    loop: asyncio.AbstractEventLoop
    transport: Any


class Gathering(BorrowedConnection):
    """The protocol of the connection until the body is whole, or is not waited for any more. Each piece is hashed while
    it is in the processor's cache; what follows the body is left in the socket. `end` must be called."""

    def __init__(
        self,
        connection: Connection,
        write: ShortWrite,
        data: bytes,
        body: memoryview,
        on_whole: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        """data: the first that came, head and `body`, which the write has taken. The write has room for all. One of
        on_whole and give_up is called, unless `end` is called before."""
        super().__init__(connection)
        self.write = write
        self._connection = connection
        self._first = data
        self._with_head = self._taken = len(body)
        self._room = BLOCKS.take(write.length)
        self._room[: len(body)] = body
        self._on_whole = on_whole
        self._timer = connection.loop.call_later(GATHERING_S_MAX, give_up)
        connection.transport.set_protocol(self)

    @property
    def body(self) -> memoryview:
        """Once it is whole."""
        return self._room

    @property
    def blocks(self) -> list[bytes]:
        """All bytes that came, in their order."""
        return [self._first, bytes(self._room[self._with_head : self._taken])]

    def end(self) -> None:
        """What comes from now on is the connection's own."""
        self._timer.cancel()
        self._connection.transport.set_protocol(cast(asyncio.Protocol, self._connection))

    # ------------------------------------------------------------------ asyncio's callbacks

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._taken :]

    def buffer_updated(self, nbytes: int) -> None:
        end = self._taken + nbytes
        self.write.take(self._room[self._taken : end])
        self._taken = end
        if end == self.write.length:
            self._on_whole()
