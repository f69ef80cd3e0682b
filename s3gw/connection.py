"""One connection from the open world: what bounds its HTTP/1.1, and what it is refused.

uvicorn and llhttp speak HTTP, and refuse what llhttp finds ambiguous (Content-Length given twice or beside
Transfer-Encoding, signs in it, bare line feeds, folded headers). BoundedProtocol bounds the head and aborts stalled
connections. What is added here is what a public endpoint needs on top:

- the number of headers, of connections and of requests at once is bounded; refusals before a request exists are
  S3 documents, and never land in the middle of another response;
- bytes that the parser swallows between pieces of a body (chunk extensions, trailers) are bounded, and HTTP trailers
  never become headers of a request that was already authenticated;
- only `chunked` as Transfer-Encoding, exactly one Host, no Transfer-Encoding with HTTP/1.0;
- a connection whose request body was not read is closed and not read on for ever;
- a request to upgrade (`h2c`) is served as HTTP/1.1 on a connection that then closes, for the parser stops there; with
  a body it is refused, because llhttp would drop the body.

`100 Continue` goes out with the first receive() and not before, which is uvicorn's own behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from s3gw.early_refusal import render_refusal, slow_down
from s3gw.large_body import find_large_body
from s3gw.patience import serve_while_there
from s3gw.protocol.errors import S3Error
from s3gw.short_connection import ShortConnection
from s3gw.turns import Turns
from storage.base.internal_server import HEAD_BYTES_MAX, STALL_TIMEOUT_S

SWALLOWED_BYTES_MAX = 16 * 1024
PIPELINED_MAX = 16
"""requests that wait for an earlier one's response on the same connection"""


class GatewayProtocol(ShortConnection):
    """One connection from the open world."""

    def __init__(self, *args: Any, on_lost: Callable[[], None], turns: Turns, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._on_lost = on_lost
        self.turns = turns
        self._refusal: S3Error | None = None
        self._deaf = False
        """what still arrives is not read: the connection closes after the response under way"""
        self._hosts = 0
        self._has_body = False
        self._body_arrived = False
        self._swallowed_bytes = 0
        self._closing_since_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections_max:
            self._refusal = S3Error("SlowDown")
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost()

    def data_received(self, data: bytes) -> None:
        if not self._deaf:
            super().data_received(data)

    def _parse(self, data: bytes) -> None:
        self._body_arrived = False
        super()._parse(data)
        cycle = self.cycle
        if self._in_head or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            return
        if cycle is None or (cycle.response_complete and not cycle.more_body):
            # Blank lines before a head have stopped uvicorn's idle timer: from here on a head is due.
            self._in_head = True
        elif cycle.more_body and not self._body_arrived:
            self._swallowed_bytes += len(data)
            if self._swallowed_bytes > SWALLOWED_BYTES_MAX:
                self.send_400_response("")

    # ------------------------------------------------------------------ the parser's callbacks

    def on_message_begin(self) -> None:
        self._hosts = self._swallowed_bytes = 0
        self._has_body = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            # HTTP trailers: counted and dropped. aws-chunked carries its own inside the body.
            self._count_head(len(name) + len(value))
            return
        super().on_header(name, value)
        if len(self.headers) > self._limits.headers_max:
            self._refuse("RequestHeaderSectionTooLarge")
        name, value = self.headers[-1]
        if name == b"host":
            self._hosts += 1
        elif name == b"transfer-encoding":
            self._has_body = True
            if value.strip().lower() != b"chunked":
                self._refuse("NotImplemented", Header="Transfer-Encoding")
        elif name == b"content-length":
            self._has_body = value.strip() != b"0"

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if self._hosts > 1 or (self._hosts == 0 and version != "1.0"):
            self._refuse("BadRequest", "Exactly one Host header is expected.")
        if self._has_body and version == "1.0" and any(name == b"transfer-encoding" for name, _ in self.headers):
            self._refuse("BadRequest", "HTTP/1.0 has no Transfer-Encoding.")
        if self._has_body and self.parser.should_upgrade():
            self._refuse("BadRequest", "A request with a body cannot upgrade the protocol.")
        if len(self.pipeline) >= PIPELINED_MAX:
            self._refuse("SlowDown")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_arrived = True
        self._swallowed_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        cycle = self.cycle
        if cycle.response_complete and (cycle.more_body or self._deaf):
            self.transport.close()

    # ------------------------------------------------------------------ uvicorn's hooks

    def shutdown(self) -> None:
        """Told to drain. Closing TLS waits for the peer's goodbye, which an idle client does not send."""
        self._leave_to_road()  # what is being gathered is under way
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        has_room = len(self.tasks) < self._limits.requests_max
        serve = partial(serve_while_there, app, cycle, find_large_body(self, cycle))
        super()._start_asgi_task(cycle, serve if has_room else slow_down)

    def _unsupported_upgrade_warning(self) -> None:
        self.cycle.keep_alive = False
        self._deaf = True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request and close; a response under way is left to finish first."""
        running = self._running
        if running is not None and not running.response_complete:
            running.keep_alive = False
            self._deaf = True
            self.pipeline.clear()
            broken = running is self.cycle and running.more_body
            if running.response_started or not broken:
                return
            running.disconnected = True
            running.message_event.set()
        refusal = self._refusal
        if refusal is None:
            too_long = self._head_bytes > HEAD_BYTES_MAX
            refusal = S3Error("RequestHeaderSectionTooLarge") if too_long else S3Error("BadRequest", msg or None)
        self.transport.write(render_refusal(refusal, self.server_state.default_headers))
        self.transport.close()

    def abort_if_stalled(self, now_s: float) -> None:
        """Also a connection whose last bytes the client does not take."""
        super().abort_if_stalled(now_s)
        if not self.transport.is_closing():
            return
        if self._closing_since_s is None:
            self._closing_since_s = now_s
        elif now_s - self._closing_since_s > STALL_TIMEOUT_S:
            self.transport.abort()

    def _refuse(self, code: str, message: str | None = None, **extra: str) -> None:
        """Out of a callback: the parser stops, and data_received calls send_400_response."""
        self._refusal = S3Error(code, message, **extra)
        raise self._refusal
