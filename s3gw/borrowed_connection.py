"""A connection whose bytes somebody else than its HTTP protocol receives for a while, straight into memory."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Owner(Protocol):
    """The HTTP protocol that the connection belongs to."""

    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BorrowedConnection(asyncio.BufferedProtocol):
    """The protocol of a connection's transport while a body comes. All but the bytes is still its owner's."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()
