"""A man in the middle of PostgreSQL connections: counts round trips, and loses answers when told to.

A round trip ends with ReadyForQuery from the server (PostgreSQL: Frontend/Backend Protocol, Message Formats).
"""

from __future__ import annotations

import asyncio
from pathlib import Path

READY_FOR_QUERY = ord("Z")
SOCKET_NAME = ".s.PGSQL.5432"

_HEADER_BYTES = 5
_READ_BYTES = 1 << 16


class PostgresProxy:
    """Listens in `directory` for connections to the server in `target`."""

    def __init__(self, directory: Path, target: Path) -> None:
        self.directory = directory
        self.round_trips = 0
        self.loses_answers = False
        self.lost = asyncio.Event()
        """an answer was lost"""
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.directory / SOCKET_NAME)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._target / SOCKET_NAME)
        self._writers += [writer, server_writer]
        try:
            await asyncio.gather(self._forward(reader, server_writer), self._return(server_reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            server_writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
        raise ConnectionResetError

    async def _return(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Message by message. With loses_answers the first is swallowed and the connection cut."""
        first = await reader.readexactly(1)
        if first == b"N":  # of an SSL request
            writer.write(first)
            first = b""
        while True:
            header = first + await reader.readexactly(_HEADER_BYTES - len(first))
            first = b""
            body = await reader.readexactly(int.from_bytes(header[1:], "big") - 4)
            if self.loses_answers:
                while header[0] != READY_FOR_QUERY:  # which says that the transaction is over
                    header = await reader.readexactly(_HEADER_BYTES)
                    await reader.readexactly(int.from_bytes(header[1:], "big") - 4)
                self.lost.set()
                raise ConnectionResetError
            self.round_trips += header[0] == READY_FOR_QUERY
            writer.write(header + body)
