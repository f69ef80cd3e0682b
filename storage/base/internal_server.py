"""Serves an ASGI application to the other processes of the cluster, on a Unix socket, on loopback or over TLS.

uvicorn speaks HTTP; this module bounds it: the size of a request's head, the time a connection may stall in each
direction, the number of connections, and the time that a drain may take. SIGTERM and SIGINT stop accepting, let the
requests under way finish, and return.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from storage.base.address import Address, is_loopback
from storage.base.tls_files import TlsFiles as TlsFiles

HEAD_BYTES_MAX = 32 * 1024
"""request line and headers together"""
BODY_HELD_BYTES_MAX = 512 * 1024
"""of a body that the application has not taken yet; reading pauses above"""
CONNECTIONS_MAX = 4096
"""beyond, requests are answered with 503"""
BACKLOG = 512
STALL_TIMEOUT_S = 30.0
"""for a whole head, and for any progress of a body in either direction"""
STALL_CHECK_S = 5.0
IDLE_TIMEOUT_S = 75
"""of a kept-alive connection; clients drop theirs earlier, so that none is reused while it closes"""
DRAIN_TIMEOUT_S = 20.0
DRAIN_CHECK_S = 0.01

_log = logging.getLogger(__name__)

_HEAD = "head"
_BODY = "body"
_ANSWER = "answer"


class CannotListen(Exception):
    """The address cannot be served; the text is one line for the operator."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with a bounded head, stall detection, and two copies of each body block less."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._heads = 0
        self._received_bytes = 0
        self._mark: tuple[str, int, int] | None = None
        self._mark_s = 0.0
        self._served_s = float("-inf")
        """when `note_served` was called last, by the loop's clock"""

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        super().data_received(data)
        # The parser keeps an unfinished header to itself, so what arrives meanwhile is counted here.
        if self._in_head and self.transport is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            return
        # receive() hands out bytes(cycle.body), which copies nothing when that is a bytes object already: the usual
        # case, where the application takes each block before the next one arrives.
        held: bytes | bytearray = cycle.body
        if not held:
            cycle.body = body  # type: ignore[assignment]
        elif isinstance(held, bytearray):
            held += body
        else:
            cycle.body = bytearray(held) + body
        if len(held) + len(body) > BODY_HELD_BYTES_MAX:
            self.flow.pause_reading()
        cycle.message_event.set()

    def count_received(self, count: int) -> None:
        """Bytes of a body that came past the parser, which are progress all the same."""
        self._received_bytes += count

    def note_served(self) -> None:
        """A request was answered past the parser, in place of on_response_complete: to set the idle timer anew each
        time would cost as much as parsing a head."""
        self._served_s = self.loop.time()
        self.server_state.total_requests += 1

    def timeout_keep_alive_handler(self) -> None:
        """The idle timer, which may have been set long before what was served past the parser."""
        is_serving = self.cycle is not None and not self.cycle.response_complete
        left_s = self.timeout_keep_alive if is_serving else self._served_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left_s, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def renew_parser(self) -> None:
        """For the next request, after a body of which the parser saw no end. As uvicorn makes its own."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def abort_if_stalled(self, now_s: float) -> None:
        """Called every STALL_CHECK_S: end the connection when it waits for the peer and nothing has moved for long."""
        mark = self._waiting_for()
        if mark is None or mark != self._mark:
            self._mark, self._mark_s = mark, now_s
        elif now_s - self._mark_s > STALL_TIMEOUT_S:
            self.transport.abort()

    def _waiting_for(self) -> tuple[str, int, int] | None:
        """What the peer owes, with the counters that show progress; None when it owes nothing."""
        if self._in_head:
            # Single bytes are no progress here: a head has to be whole in time.
            return (_HEAD, self._heads, 0)
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return None
        if self.flow.write_paused:
            return (_ANSWER, self._heads, self.transport.get_write_buffer_size())
        if cycle.more_body and not self.flow.read_paused and not cycle.waiting_for_100_continue:
            return (_BODY, self._heads, self._received_bytes)
        return None

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > HEAD_BYTES_MAX:
            raise ValueError("the request's head is too large")  # the parser turns it into a 400 and a close


MakeProtocol = Callable[..., BoundedProtocol]


class InternalServer(Server):
    """uvicorn's server on sockets of our own. Signals are left to serve(): uvicorn would raise them again after the
    drain, so that a process that stopped in good order would seem killed."""

    def __init__(
        self,
        config: Config,
        address: Address,
        tls: ssl.SSLContext | None,
        on_started: Callable[[Address], None] | None = None,
        make_protocol: MakeProtocol = BoundedProtocol,
    ) -> None:
        super().__init__(config)
        self._make_protocol = make_protocol
        self._address = address
        self._tls = tls
        self._socket_inode: int | None = None
        self._on_started = on_started
        self.stop_asked = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Sequence[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.config.ssl = self._tls
        if self._address.is_unix:
            listener = _bind_unix(Path(self._address.path))
            self._socket_inode = Path(self._address.path).stat().st_ino
            bound = self._address
            server = await loop.create_unix_server(self._protocol, sock=listener, backlog=BACKLOG)
        else:
            try:
                server = await loop.create_server(
                    self._protocol, self._address.host, self._address.port, ssl=self._tls, backlog=BACKLOG
                )
            except OSError as error:
                raise CannotListen(f"cannot listen on {self._address}: {error.strerror or error}") from error
            bound = self._address._replace(port=server.sockets[0].getsockname()[1])
        self.servers = [server]
        self.started = True
        if self._on_started is not None:
            self._on_started(bound)

    async def main_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stop_asked.is_set():
            await self.on_tick(0)
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.abort_if_stalled(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STALL_CHECK_S):
                    await self.stop_asked.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._remove_socket()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn keeps sets, which tell nobody
                    await asyncio.sleep(DRAIN_CHECK_S)
        except TimeoutError:
            _log.warning("%d requests were cut off at the end of the drain", len(state.tasks))
            for task in list(state.tasks):
                task.cancel()
            for connection in list(state.connections):
                connection.transport.abort()

    def _remove_socket(self) -> None:
        path = Path(self._address.path)
        # Another process may own the path by now; only our own socket is removed.
        with contextlib.suppress(OSError):
            if self._socket_inode is not None and path.stat().st_ino == self._socket_inode:
                path.unlink()

    def _protocol(self) -> BoundedProtocol:
        return self._make_protocol(config=self.config, server_state=self.server_state, app_state={})


async def serve(
    app: Any,
    address: Address,
    tls: TlsFiles | None,
    *,
    on_started: Callable[[Address], None] | None = None,
    stop: asyncio.Event | None = None,
    make_protocol: MakeProtocol = BoundedProtocol,
) -> None:
    """Serve until SIGTERM or SIGINT (or, when `stop` is given, until it is set; signals are then left alone).

    make_protocol: for each connection, given what BoundedProtocol takes. on_started is called once the socket accepts,
    with the address that was bound (the port filled in). CannotListen, with one line for the operator, when the address
    cannot be served, TLS files are missing or unreadable, or the address is neither a Unix socket nor loopback and has
    no TLS.
    """
    context = load_server_tls(address, tls)
    server = InternalServer(_configure(app), address, context, on_started, make_protocol)
    if stop is not None:
        server.stop_asked = stop
    with stop_on_signals(server.stop_asked, enabled=stop is None):
        serving = asyncio.ensure_future(server.serve())
        try:
            await asyncio.shield(serving)
        finally:
            # Cancelled from outside: drain as well.
            server.stop_asked.set()
            await serving


def load_server_tls(address: Address, tls: TlsFiles | None) -> ssl.SSLContext | None:
    """The TLS context that an address needs; None for Unix sockets and plain loopback. CannotListen."""
    if not address.is_tls:
        if not address.is_unix and not is_loopback(address.host):
            raise CannotListen(f"{address} is not loopback and needs https with a certificate")
        return None
    if tls is None:
        raise CannotListen(f"{address} needs a TLS certificate and key")
    try:
        return make_server_tls(tls)
    except (OSError, ssl.SSLError) as error:
        raise CannotListen(f"cannot load {tls.cert} and {tls.key}: {error.strerror or error}") from error


def make_server_tls(tls: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate. OSError (ssl.SSLError is one) when the files cannot be loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.cert, tls.key)
    return context


def _configure(app: Any) -> Config:
    config = Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_TIMEOUT_S,
    )
    config.load()
    return config


@contextlib.contextmanager
def stop_on_signals(stop: asyncio.Event, *, enabled: bool) -> Iterator[None]:
    """SIGTERM and SIGINT set the event for as long as the block lasts; nothing is touched when not enabled."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT) if enabled else ()
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _bind_unix(path: Path) -> socket.socket:
    """A bound socket that only this user can connect to; a socket that nobody listens on any more is replaced."""
    _remove_stale_socket(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise CannotListen(f"cannot listen on unix:{path}: {error.strerror}") from error
    finally:
        os.umask(mask)
    return listener


def _remove_stale_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotListen(f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise CannotListen(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise CannotListen(f"cannot tell whether {path} is in use: {error.strerror}") from error
    raise CannotListen(f"another process serves unix:{path}")
