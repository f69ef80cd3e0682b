"""Serves the gateway's application on a listening socket that the process inherited: HTTP/1.1 for the open world.

Connections come from the acceptor and are `s3gw.connection`'s; here they are watched, bounded in time and drained.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from s3gw.acceptor import Acceptor, Board
from s3gw.connection import GatewayProtocol
from s3gw.http_limits import DEFAULT_LIMITS, HttpLimits
from s3gw.short_way import ShortWay
from s3gw.turns import Turns
from storage.base.internal_server import STALL_CHECK_S, TlsFiles, make_server_tls, stop_on_signals

BACKLOG = 2048
TICK_S = 1.0
"""between updates of the Date header"""


class GatewayServer(Server):
    """uvicorn's server, stopped by an event: its own signal handling ends a drained process by the signal."""

    def __init__(
        self,
        config: Config,
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
        self._turns = Turns()
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
            turns=self._turns,
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
    before: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve on a bound socket until SIGTERM or SIGINT (or, when `stop` is given, until that is set; signals are then
    left alone). From then on no connection is accepted, requests under way get limits.drain_s to finish, and it
    returns with the socket closed. board: of all workers on this socket, when there are others. before: awaited before
    the first connection is accepted. OSError (ssl.SSLError is one) when the TLS files cannot be loaded.
    """
    config = Config(
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
        if before is not None and not await _comes_first(before, asked):
            sock.close()
            return
        short_way = getattr(app, "short_way", None)
        await GatewayServer(config, limits, board, asked, on_started, short_way).serve(sockets=[sock])


async def _comes_first(work: Callable[[], Awaitable[object]], asked: asyncio.Event) -> bool:
    """→ whether the work ended before it was asked to stop."""
    working, stopping = asyncio.ensure_future(work()), asyncio.ensure_future(asked.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return not asked.is_set()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


def _load_tls(tls: TlsFiles) -> ssl.SSLContext:
    context = make_server_tls(tls)
    context.set_alpn_protocols(["http/1.1"])
    return context
