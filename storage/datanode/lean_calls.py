"""The datanode's requests that are taken past the parser and ASGI (storage.base.lean_protocol): a table of handlers, by
what their targets begin with.

A handler begins a piece of work for a request that it takes, and leaves every other to the ordinary road. What goes
wrong once the body has come is answered here, as the application answers it.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from storage.base.lean_head import LeanHead
from storage.chunks.store import Buffer
from storage.datanode import wire
from storage.datanode.exchange import MSGPACK
from storage.datanode.failures import name_failure

_TYPE = b"%b: %b\r\n" % MSGPACK


class LeanWork(Protocol):
    """What one request asks for."""

    def start(self, blocks: Sequence[Buffer]) -> asyncio.Future[Any]:
        """The body has come. Errors known by then may be raised here."""
        ...

    def encode(self, done: asyncio.Future[Any]) -> tuple[int, bytes]:
        """Status and body of the answer, of what the future gave. Raises what that raises."""
        ...

    def close(self) -> None:
        """It is over, or the body will never come whole. Called once."""
        ...


class LeanHandler(Protocol):
    """Of one kind of request."""

    def begin(self, target: str, length: int) -> LeanWork | None:
        """target: without what the table names. length: of the body, in bytes, which may be held from now on. None: it
        is for the ordinary road, also where that will refuse it."""
        ...


class DatanodeLeanCalls:
    """LeanCalls of one datanode."""

    def __init__(self, authorization: bytes, handlers: Sequence[tuple[str, LeanHandler]]) -> None:
        """authorization: the header's value, of who may call."""
        self.requests = 0
        """under way"""
        self._authorization = authorization
        self._handlers = handlers

    def begin(self, head: LeanHead) -> DatanodeLeanCall | None:
        """As LeanCalls."""
        if not hmac.compare_digest(head.authorization, self._authorization):
            return None
        for prefix, handler in self._handlers:
            if head.target.startswith(prefix):
                work = handler.begin(head.target[len(prefix) :], head.length)
                return None if work is None else DatanodeLeanCall(self, head.target, work)
        return None


class DatanodeLeanCall:
    """LeanCall of one request."""

    __slots__ = ("_answer", "_calls", "_target", "_work")

    def __init__(self, calls: DatanodeLeanCalls, target: str, work: LeanWork) -> None:
        calls.requests += 1
        self._calls = calls
        self._target = target
        self._work = work
        self._answer: Callable[[bytes], None]

    def run(self, blocks: Sequence[Buffer], answer: Callable[[bytes], None]) -> None:
        self._answer = answer
        try:
            self._work.start(blocks).add_done_callback(self._settle)
        except Exception as error:  # noqa: BLE001 - the process's edge, as in the application
            self._finish(self._fail(error))

    def drop(self) -> None:
        self._close()

    def _settle(self, done: asyncio.Future[Any]) -> None:
        try:
            answer = format_answer(*self._work.encode(done))
        except Exception as error:  # noqa: BLE001 - the process's edge, as in the application
            answer = self._fail(error)
        self._finish(answer)

    def _fail(self, error: Exception) -> bytes:
        status, name, message = name_failure(error, f"PUT {self._target.partition('?')[0]}")
        name_line = b"%b: %b\r\n" % (wire.ERROR_HEADER.encode(), name.encode())
        return format_answer(status, wire.encode_failure(name, message), name_line)

    def _finish(self, answer: bytes) -> None:
        self._close()
        self._answer(answer)

    def _close(self) -> None:
        self._calls.requests -= 1
        self._work.close()


def format_answer(status: int, body: bytes, more: bytes = b"") -> bytes:
    """A whole answer, as Exchange gives it. more: lines of its head."""
    return b"%bcontent-length: %d\r\n%b%b\r\n%b" % (STATUS_LINE[status], len(body), more, _TYPE, body)
