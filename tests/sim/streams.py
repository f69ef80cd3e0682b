"""The far end of a request's body, as ASGI reads it: pieces that arrive, an end, or a sender that goes away."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableMapping
from typing import Any


class Stream:
    """`arrive` and `end`, or `cut_off`, from one side; `receive` on the other."""

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        """the far side has asked for it"""
        self.deadline: asyncio.Timeout | None = None
        """of the sender's call, while the far side is to blame"""
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._is_over = False
        self._is_cut_off = False

    @staticmethod
    def of(body: bytes) -> Stream:
        """One that has come whole."""
        stream = Stream()
        stream.arrive(body)
        stream.end()
        return stream

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message for an application."""
        self.wanted.set()
        while True:
            if self._pieces:
                piece = self._pieces.popleft()
                return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or not self._is_over}
            if self._is_cut_off:
                return {"type": "http.disconnect"}
            if self._is_over:
                return {"type": "http.request", "body": b"", "more_body": False}
            self._news.clear()
            await self._news.wait()

    def arrive(self, piece: bytes) -> None:
        """A piece came."""
        self._pieces.append(piece)
        self._news.set()

    def end(self) -> None:
        """All of them came."""
        self._is_over = True
        self._news.set()

    def cut_off(self) -> None:
        """No more will come."""
        self._is_cut_off = not self._is_over
        self._news.set()

    def expect(self, within_s: float | None) -> None:
        """From now on the far side has so much time; None: it is not waited for."""
        if self.deadline is not None and not self.deadline.expired():
            when = None if within_s is None else asyncio.get_running_loop().time() + within_s
            self.deadline.reschedule(when)
