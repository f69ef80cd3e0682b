"""A real internal server inside the test's event loop, for as long as a `with` lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from storage.base.address import Address, parse_address
from storage.base.internal_server import BoundedProtocol, MakeProtocol, TlsFiles, serve


@asynccontextmanager
async def serving(
    app: Any, address: str, tls: TlsFiles | None = None, make_protocol: MakeProtocol = BoundedProtocol
) -> AsyncIterator[Address]:
    """Serve `app`; yields the address that was bound. The server has drained when the block is left."""
    stop = asyncio.Event()
    started: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.ensure_future(
        serve(
            app,
            parse_address(address),
            tls,
            on_started=started.set_result,
            stop=stop,
            make_protocol=make_protocol,
        )
    )
    await asyncio.wait({server, started}, return_when=asyncio.FIRST_COMPLETED)
    if server.done():
        await server
    try:
        yield await started
    finally:
        stop.set()
        await server


async def exchange_bytes(address: Address, data: bytes) -> bytes:
    """Send raw bytes on a connection of its own and return all that comes until the server closes it. A reset is an
    end like any other: it means that the server had not read all of the bytes."""
    if address.is_unix:
        reader, writer = await asyncio.open_unix_connection(address.path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    answer = bytearray()
    try:
        writer.write(data)
        while block := await reader.read(65536):
            answer += block
    except ConnectionError:
        pass
    finally:
        writer.close()
    return bytes(answer)
