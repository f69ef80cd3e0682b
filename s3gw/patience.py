"""A request's bytes as they come, with a bound on how long a client may keep us waiting for some progress."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from s3gw.large_body import LargeBody
from s3gw.protocol.errors import S3Error
from storage.crypto.envelope import Buffer

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

PATIENCE_S = 20.0
"""how long a client may keep us waiting for PROGRESS_BYTES; the consumer's own time does not count. Below the time
after which the server aborts a stalled connection, so that the client is told."""
PROGRESS_BYTES = 16 * 1024


class ClientDisconnected(Exception):
    """The client went away before its body, or the answer's, was whole; there is nobody to answer."""


class PatientReceiver:
    """ASGI's receive, for one request."""

    def __init__(self, receive: Receive, patience_s: float = PATIENCE_S) -> None:
        self._receive = receive
        self._patience_max_s = self._patience_s = patience_s
        self._progress_bytes = 0

    async def next_bytes(self) -> tuple[Buffer, bool]:
        """Some bytes as they came, and whether they are the last. ClientDisconnected; RequestTimeout."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        try:
            async with asyncio.timeout(self._patience_s):
                message = await self._receive()
        except TimeoutError:
            raise S3Error("RequestTimeout") from None
        if message["type"] != "http.request":
            raise ClientDisconnected
        data: Buffer = message.get("body", b"")
        self._progress_bytes += len(data)
        if self._progress_bytes >= PROGRESS_BYTES:
            self._progress_bytes = 0
            self._patience_s = self._patience_max_s
        else:
            self._patience_s -= loop.time() - started_s
        return data, not message.get("more_body", False)


async def serve_while_there(
    app: Any, cycle: RequestResponseCycle, large_body: LargeBody | None, scope: Any, receive: Any, send: Any
) -> None:
    """uvicorn drops in silence what is sent to nobody: an object would be read to its end. ClientDisconnected instead,
    out of the send of a piece of a body. large_body: where the request's body comes from, if not out of the parser."""

    async def send_or_tell(message: Any) -> None:
        await send(message)
        if cycle.disconnected and message.get("more_body"):
            raise ClientDisconnected

    await app(scope, receive if large_body is None else large_body.receive, send_or_tell)
