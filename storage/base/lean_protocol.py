"""HTTP for requests that callers of our own send again and again, past the parser and ASGI: a PUT whose body is small,
gathered as it comes, and an answer that is one piece of bytes.

A request comes here on a connection that is idle, spelled as InternalClient spells it, and only if its LeanCalls take
it. Everything else goes the ordinary road of BoundedProtocol, before and after on the same connection: also what is to
be refused, so that there is one place that words refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from storage.base.internal_server import CONNECTIONS_MAX, BoundedProtocol
from storage.base.lean_head import LeanHead, parse_lean_head

Buffer = bytes | bytearray | memoryview

SMALL_BLOCK_BYTES = 4096
"""of a body, are copied together: whoever sends byte by byte is not to make an object of each"""
JOINED_BYTES_MAX = 64 * 1024


class LeanCall(Protocol):
    """One request. Either `run` is called, once, or `drop`."""

    def run(self, blocks: Sequence[Buffer], answer: Callable[[bytes], None]) -> None:
        """The body has come. `answer` takes head and body of the answer, once, now or later; nothing is raised."""
        ...

    def drop(self) -> None:
        """The connection was lost before the end of the body."""
        ...


class LeanCalls(Protocol):
    """What a server takes past the parser."""

    def begin(self, head: LeanHead) -> LeanCall | None:
        """None: it is for the ordinary road, and nothing has happened."""
        ...


class _NobodyWaits:
    def set(self) -> None:
        """uvicorn tells whoever waits for a request's next message."""


class LeanCycle:
    """A request under way, in the shape of uvicorn's RequestResponseCycle, as far as the protocol asks for it: so a
    stall, a drain and a lost connection find it as any other."""

    __slots__ = ("_answer", "_blocks", "_call", "_left", "disconnected", "keep_alive", "more_body", "response_complete")

    message_event = _NobodyWaits()
    waiting_for_100_continue = False
    body = b""

    def __init__(self, call: LeanCall, length: int, answer: Callable[[LeanCycle, bytes], None]) -> None:
        self.keep_alive = True
        self.disconnected = False
        self.more_body = True
        self.response_complete = False
        self._call = call
        self._left = length
        self._blocks: list[Buffer] = []
        self._answer = answer

    def take(self, data: memoryview) -> memoryview:
        """What of the data is behind the body."""
        left = self._left
        block = data[:left] if len(data) > left else data
        self._left -= len(block)
        if len(block) < SMALL_BLOCK_BYTES:
            self._join(block)
        else:
            self._blocks.append(block)
        if not self._left:
            self.more_body = False
            blocks, self._blocks = self._blocks, []
            self._call.run(blocks, self._finish)
        return data[left:]

    def _join(self, block: memoryview) -> None:
        last = self._blocks[-1] if self._blocks else b""
        if isinstance(last, bytearray) and len(last) < JOINED_BYTES_MAX:
            last += block
        elif block:
            self._blocks.append(bytearray(block))

    def lose(self) -> None:
        """The connection is gone."""
        self.disconnected = True
        if self.more_body:
            self.more_body = False
            self._blocks = []
            self._call.drop()

    def _finish(self, answer: bytes) -> None:
        self.response_complete = True
        self._answer(self, answer)


class LeanProtocol(BoundedProtocol):
    """One connection."""

    def __init__(self, calls: LeanCalls, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._calls = calls
        self._lean: LeanCycle | None = None
        """the request under way, if it came past the parser"""

    def data_received(self, data: bytes) -> None:
        lean = self._lean
        if lean is None:
            if self._is_idle() and (head := parse_lean_head(data)) is not None:
                call = self._calls.begin(head)
                if call is not None:
                    self._begin(call, head, data)
                    return
        elif lean.more_body:
            self._take(lean, memoryview(data))
            return
        super().data_received(data)

    def _is_idle(self) -> bool:
        """Whether a request may begin here, with all before it over: of the parser's, and of the answers."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None:
            is_between = not self._received_bytes
        else:
            is_between = cycle.response_complete and not cycle.more_body and not self._in_head
        return (
            is_between
            and not self.pipeline
            and not self.transport.get_write_buffer_size()
            and not self.transport.is_closing()
            and len(self.connections) < CONNECTIONS_MAX
        )

    def _begin(self, call: LeanCall, head: LeanHead, data: bytes) -> None:
        self._in_head = False
        self._heads += 1
        self._received_bytes += head.end
        lean = LeanCycle(call, head.length, self._finish)
        self.cycle = self._lean = lean  # type: ignore[assignment]
        self._take(lean, memoryview(data)[head.end :])

    def _take(self, lean: LeanCycle, data: memoryview) -> None:
        rest = lean.take(data)
        self._received_bytes += len(data) - len(rest)
        if rest:  # who does not wait for an answer is served by the parser
            super().data_received(bytes(rest))

    def _finish(self, lean: LeanCycle, answer: bytes) -> None:
        self._lean = None
        if lean.disconnected or self.transport.is_closing():
            return
        if not lean.keep_alive:
            self.transport.write(answer.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1))
            self.transport.close()
        else:
            self.transport.write(answer)
        if self.pipeline or self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.note_served()

    def connection_lost(self, exc: Exception | None) -> None:
        lean, self._lean = self._lean, None
        super().connection_lost(exc)
        if lean is not None:
            lean.lose()
