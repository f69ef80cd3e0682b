"""Serves the gateway's application on a listening socket that the process inherited: HTTP/1.1 for the open world.

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
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from s3gw.acceptor import Acceptor, Board
from s3gw.early_refusal import render_refusal, slow_down
from s3gw.patience import serve_while_there
from s3gw.plain_head import parse_plain_head, parse_plain_write
from s3gw.protocol.claims import join_headers
from s3gw.protocol.errors import S3Error
from s3gw.short_answer import HeldRequest, LeavingCycle, LongReads, ShortCycle, format_head
from s3gw.short_way import BODY_BYTES_MAX, READ_BYTES_MAX, ShortRead, ShortWay
from storage.base.internal_server import (
    HEAD_BYTES_MAX,
    STALL_CHECK_S,
    STALL_TIMEOUT_S,
    BoundedProtocol,
    TlsFiles,
    make_server_tls,
    stop_on_signals,
)

BACKLOG = 2048
TICK_S = 1.0
"""between updates of the Date header"""
SWALLOWED_BYTES_MAX = 16 * 1024
PIPELINED_MAX = 16
"""requests that wait for an earlier one's response on the same connection"""


class HttpLimits(NamedTuple):
    """What bounds a gateway's HTTP, per worker. Heads and stalls: storage.base.internal_server."""

    headers_max: int = 100
    connections_max: int = 4096
    requests_max: int = 1024
    """at once; the next one is told to slow down"""
    idle_s: int = 75
    """of a kept-alive connection"""
    drain_s: int = 20
    """for the requests under way when the gateway is told to stop"""


DEFAULT_LIMITS = HttpLimits()


class GatewayProtocol(BoundedProtocol):
    """One connection from the open world."""

    def __init__(
        self,
        *args: Any,
        limits: HttpLimits,
        on_lost: Callable[[], None],
        short_way: ShortWay | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._on_lost = on_lost
        self._short_way = short_way
        self._served_s = 0.0
        """when the last request was served past the parser, by the loop's clock"""
        self._leaving: LeavingCycle | None = None
        self._is_tls = False
        """what such a transport has not sent yet cannot be known"""
        self._long_reads = LongReads()
        self._is_for_road = False
        """what arrived is a PUT that the short way has seen and left"""
        self._held: HeldRequest | None = None
        """a request that may go the short way, while its bytes are being parsed"""
        self._refusal: S3Error | None = None
        self._running: RequestResponseCycle | None = None
        """the request whose response is next on the wire"""
        self._deaf = False
        """what still arrives is not read: the connection closes after the response under way"""
        self._hosts = 0
        self._has_body = False
        self._body_arrived = False
        self._swallowed_bytes = 0
        self._closing_since_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_tls = transport.get_extra_info("sslcontext") is not None
        if len(self.connections) > self._limits.connections_max:
            self._refusal = S3Error("SlowDown")
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_leaving()
        self._on_lost()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._leaving is not None:
            self.transport.set_write_buffer_limits()
            self._end_leaving()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._serve_plain(data):
            return
        self._body_arrived = False
        super().data_received(data)
        self._is_for_road = False
        if self._held is not None:  # the rest of its body is still to come
            self._let_go()
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
        if self._short_way is not None and version == "1.1" and self._may_be_short():
            self._in_head = False
            self._held = HeldRequest(self.parser.get_method().decode("ascii"), self.url)
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_arrived = True
        self._swallowed_bytes = 0
        if self._held is not None:
            self._held.body += body
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._held is not None:
            if self._serve_short(self._held):
                self._held = None
                return
            self._let_go()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        cycle = self.cycle
        if cycle.response_complete and (cycle.more_body or self._deaf):
            self.transport.close()

    # ------------------------------------------------------------------ the short way

    def _serve_plain(self, data: bytes) -> bool:
        """A whole read or small PUT on a connection that was idle, past the parser. False: nothing has happened."""
        if (
            self.timeout_keep_alive_task is None
            or self._in_head
            or self._short_way is None
            or self.transport.get_write_buffer_size()
            or len(self.tasks) >= self._limits.requests_max
        ):
            return False
        if (write := parse_plain_write(data, BODY_BYTES_MAX)) is not None:
            return self._take_plain_write(*write)
        if self._long_reads.expected or (head := parse_plain_head(data)) is None:
            return False
        read = self._read_short(*head)
        if read is None:
            self._long_reads.expected += 1  # this one: the parser brings it again
            return False
        self._heads += 1
        self._served_s = self.loop.time()  # in place of the idle timer: setting it each time would cost 1 µs
        self.server_state.total_requests += 1
        if not self._hand_over(read):
            self._unset_keepalive_if_required()
        return True

    def _take_plain_write(self, url: bytes, headers: dict[bytes, bytes], body: bytes) -> bool:
        if not self._write_short(url, headers, body):
            self._is_for_road = True  # the parser brings it again
            return False
        self._heads += 1
        self._unset_keepalive_if_required()  # until it is answered
        return True

    def timeout_keep_alive_handler(self) -> None:
        left_s = self._served_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _may_be_short(self) -> bool:
        """Whether nothing else is under way here, and nothing about HTTP needs more than an answer. The answer before
        has left: who does not read gets one, and waits for the others on the road."""
        cycle = self.cycle
        return (
            (cycle is None or (cycle.response_complete and not cycle.more_body))
            and not self.pipeline
            and not self.transport.get_write_buffer_size()
            and not self.expect_100_continue
            and len(self.tasks) < self._limits.requests_max
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )

    def _serve_short(self, held: HeldRequest) -> bool:
        """False: it goes on as any other. Its body, if any, has come whole."""
        headers = join_headers(self.headers)
        if held.method == "PUT":
            return not self._is_for_road and self._write_short(held.url, headers, bytes(held.body))
        if self._has_body or held.method not in ("GET", "HEAD"):
            return False
        if self._long_reads.expected:
            self._long_reads.expected -= 1
            return False
        read = self._read_short(held.method, held.url, headers)
        if read is None:
            return False
        if self._hand_over(read):
            super().on_response_complete()
        return True

    def _read_short(self, method: str, url: bytes, headers: dict[bytes, bytes]) -> ShortRead | None:
        assert self._short_way is not None
        address = self.client[0] if self.client else ""
        bytes_max = BODY_BYTES_MAX if self._is_tls else READ_BYTES_MAX
        read = self._short_way.read(method, url, headers, address, bytes_max)
        self._long_reads.note(is_long=read is None)
        return read

    def _write_short(self, url: bytes, headers: dict[bytes, bytes], body: bytes) -> bool:
        assert self._short_way is not None
        cycle = ShortCycle(self)
        address = self.client[0] if self.client else ""
        if not self._short_way.write(url, headers, body, address, cycle.answer):
            return False
        self.cycle = self._running = cycle  # type: ignore[assignment]
        return True

    def _hand_over(self, read: ShortRead) -> bool:
        """Send an answer. False: the client did not take all of it at once; its cycle is under way until it has."""
        head = format_head(self.server_state.default_headers, read.status, read.headers)
        body, transport = read.body, self.transport
        if not isinstance(body, memoryview):
            transport.write(head + body)
            return True
        transport.writelines((head, body))
        if not transport.get_write_buffer_size():
            return True
        self._leaving = LeavingCycle(self, read.keep())
        self.cycle = self._running = self._leaving  # type: ignore[assignment]
        transport.set_write_buffer_limits(0)  # so that resume_writing tells when all of it has left
        return False

    def _end_leaving(self) -> None:
        leaving, self._leaving = self._leaving, None
        if leaving is not None:
            leaving.end()

    def _let_go(self) -> None:
        """What was held goes on as any other request, with as much of its body as has come."""
        held, self._held = self._held, None
        assert held is not None
        super().on_headers_complete()
        if held.body:
            super().on_body(bytes(held.body))

    # ------------------------------------------------------------------ uvicorn's hooks

    def shutdown(self) -> None:
        """Told to drain. Closing TLS waits for the peer's goodbye, which an idle client does not send."""
        is_idle = self.cycle is None or self.cycle.response_complete
        if is_idle and not self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        has_room = len(self.tasks) < self._limits.requests_max
        super()._start_asgi_task(cycle, partial(serve_while_there, app, cycle) if has_room else slow_down)

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


class GatewayServer(uvicorn.Server):
    """uvicorn's server, stopped by an event: its own signal handling ends a drained process by the signal."""

    def __init__(
        self,
        config: uvicorn.Config,
        limits: HttpLimits,
        board: Board | None,
        stop: asyncio.Event,
        on_started: Callable[[], None] | None,
        short_way: ShortWay | None,
    ) -> None:
        super().__init__(config)
        self._short_way = short_way
        self._limits = limits
        self._board = board
        self._stop = stop
        self._on_started = on_started
        self._acceptor: Acceptor | None = None
        self.servers = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        self._acceptor = Acceptor(
            sockets[0],
            self._new_protocol,
            lambda: len(self.server_state.connections),
            self.config.ssl,
            self._board,
        )
        self._acceptor.start(BACKLOG)
        self.started = True
        if self._on_started is not None:
            self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
        await super().shutdown(sockets)
        # A TLS client that never says goodbye would keep its transport half closed, and uvloop from ever closing.
        for connection in list(self.server_state.connections):
            if isinstance(connection, GatewayProtocol):
                connection.transport.abort()
        await asyncio.sleep(0)

    def _new_protocol(self) -> GatewayProtocol:
        assert self._acceptor is not None
        return GatewayProtocol(
            limits=self._limits,
            on_lost=self._acceptor.show_count,
            short_way=self._short_way,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def main_loop(self) -> None:
        loop = asyncio.get_running_loop()
        checked_s = loop.time()
        while not self._stop.is_set():
            await self.on_tick(0)
            if loop.time() - checked_s >= STALL_CHECK_S:
                checked_s = loop.time()
                for connection in list(self.server_state.connections):
                    if isinstance(connection, GatewayProtocol):
                        connection.abort_if_stalled(checked_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stop.wait()


async def serve_gateway(
    app: Any,
    sock: socket.socket,
    *,
    tls: TlsFiles | None = None,
    limits: HttpLimits = DEFAULT_LIMITS,
    board: Board | None = None,
    on_started: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT (or, when `stop` is given, until that is set; signals are then
    left alone). From then on no connection is accepted, requests under way get limits.drain_s to finish, and it
    returns with the socket closed. board: of all workers on this socket, when there are others. OSError (ssl.SSLError
    is one) when the TLS files cannot be loaded.
    """
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=limits.idle_s,
        timeout_graceful_shutdown=limits.drain_s,
    )
    config.load()
    config.ssl = _load_tls(tls) if tls is not None else None
    asked = stop or asyncio.Event()
    with stop_on_signals(asked, enabled=stop is None):
        short_way = getattr(app, "short_way", None)
        await GatewayServer(config, limits, board, asked, on_started, short_way).serve(sockets=[sock])


def _load_tls(tls: TlsFiles) -> ssl.SSLContext:
    context = make_server_tls(tls)
    context.set_alpn_protocols(["http/1.1"])
    return context
