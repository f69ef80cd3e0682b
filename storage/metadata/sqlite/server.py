"""The owner's side of the metadata socket: frames in, commands to the committer, answers out, a group at a time.

Only processes of the same user get in: the socket is 0600 and the peer's uid is checked (SO_PEERCRED).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Any, cast

from storage.base.errors import Unavailable
from storage.metadata.sqlite.wire import Frame, FrameReader, ProtocolError, decode_command, encode_outcome
from storage.metadata.sqlite.writer import GroupCommitter

CONNECTIONS_MAX = 256
IN_FLIGHT_PER_CONNECTION_MAX = 1024
_BACKLOG = 128
_PEER_CREDENTIALS = struct.Struct("3i")

_log = logging.getLogger(__name__)


class MetadataServer:
    """Listens on a Unix socket for a committer."""

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Take over the path (the caller holds the owner's lock, so what is there is stale)."""
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        self._path = path
        self._server = await loop.create_unix_server(self._accept, sock=listening, backlog=_BACKLOG)

    async def close(self) -> None:
        """Take no more connections or commands, answer what is under way, then hang up."""
        if self._server is not None:
            self._server.close()
        await self._committer.close()
        for connection in list(self._connections):
            connection.hang_up()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _accept(self) -> _Connection:
        return _Connection(self._committer, self._connections)


class _Connection(asyncio.Protocol):
    """One client. Also the sink of its commands' answers; a ticket is a request id."""

    def __init__(self, committer: GroupCommitter, connections: set[_Connection]) -> None:
        self._committer = committer
        self._connections = connections
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._in_flight = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop derives its own
        uid = _peer_uid(transport)
        if uid != os.geteuid() or len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("metadata socket: refused a peer of uid %d beside %d others", uid, len(self._connections))
            transport.abort()
            return
        self._transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except ProtocolError as error:
            _log.warning("metadata socket: closed a connection: %s", error)
            self._transport = None
            transport.abort()

    def pause_writing(self) -> None:
        """A client that does not read its answers gets to send no more commands."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def answer(self, batch: list[tuple[Any, Any]]) -> None:
        self._in_flight -= len(batch)
        if self._transport is not None:
            self._transport.write(b"".join([encode_outcome(ticket, outcome) for ticket, outcome in batch]))

    def hang_up(self) -> None:
        """After what was written is sent."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, frame: Frame) -> None:
        command = decode_command(frame)
        try:
            if self._in_flight >= IN_FLIGHT_PER_CONNECTION_MAX:
                raise Unavailable("too many writes in flight on this connection")
            self._committer.submit(command, self, frame.request_id, len(frame.body))
            self._in_flight += 1
        except Unavailable as refusal:
            if self._transport is not None:
                self._transport.write(encode_outcome(frame.request_id, refusal))


def _peer_uid(transport: asyncio.Transport) -> int:
    """Of the process that connected, as the kernel recorded it."""
    listening = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(listening.fileno())) as peer:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    return int(_PEER_CREDENTIALS.unpack(raw)[1])
