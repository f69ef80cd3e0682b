"""The datanode's routes below /v1/journal: JournalFiles behind the protocol of journal_wire.

They have worker threads of their own, so that an append, which every write to the metadata waits for, never stands in
line behind chunks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from storage.chunks.worker_pool import WorkerPool
from storage.datanode import journal_wire, wire
from storage.datanode.exchange import BadRequest, Exchange
from storage.datanode.journal_files import JournalFiles

WORKER_THREADS = 3
LARGE_BODY_BYTES = 256 * 1024
LARGE_AT_ONCE_MAX = 2
"""whole files and reads that are large, each in memory once"""

_T = TypeVar("_T")


class JournalRoutes:
    """Called by the application for an authenticated request; closed once."""

    def __init__(self, files: JournalFiles) -> None:
        self._files = files
        self._pool = WorkerPool(WORKER_THREADS, "journal")
        self._large = asyncio.Semaphore(LARGE_AT_ONCE_MAX)

    def close(self) -> None:
        """Finish what was begun. Blocking, for the end of a process."""
        self._pool.close()
        self._files.close()

    def append(self, owner: bytes, name: str, offset: int, data: bytes) -> asyncio.Future[int]:
        """As JournalFiles, on a worker thread. Unavailable when too much is waiting for one."""
        return self._pool.run(self._files.append, owner, name, offset, data)

    async def answer(self, exchange: Exchange) -> None:
        """BadRequest for what is none of these routes; JournalError, NodeFull."""
        method, path = exchange.method, exchange.path
        if (method, path) == ("GET", journal_wire.JOURNAL):
            await self._list(exchange)
        elif (method, path) == ("POST", journal_wire.FENCE):
            change = _parsed(journal_wire.parse_change, exchange.query)
            await self._pool.run(self._files.admit, change.owner)
            await self._list(exchange)
        else:
            await self._answer_file(exchange, _file_name(path))

    async def _answer_file(self, exchange: Exchange, name: str) -> None:
        if exchange.method == "GET":
            await self._read(exchange, name)
        elif exchange.method == "PUT":
            await self._put(exchange, name)
        elif exchange.method == "DELETE":
            change = _parsed(journal_wire.parse_change, exchange.query)
            await exchange.answer(200, wire.encode(await self._pool.run(self._files.delete, change.owner, name)))
        else:
            raise BadRequest(405, "no such action on a journal file")

    async def _list(self, exchange: Exchange) -> None:
        listing = await self._pool.run(self._files.list)
        await exchange.answer(200, journal_wire.encode_listing(listing.fence, listing.files))

    async def _read(self, exchange: Exchange, name: str) -> None:
        asked = _parsed(wire.parse_range, exchange.header(b"range"))
        if asked.length is None or asked.length > journal_wire.READ_BYTES_MAX:
            raise BadRequest(400, f"a range of at most {journal_wire.READ_BYTES_MAX} bytes is wanted")
        async with self._large:
            data = await self._pool.run(self._files.read, name, asked.offset, asked.length)
            if not data:
                raise BadRequest(416, "the range begins beyond the end of the file")
            span = b"bytes %d-%d/*" % (asked.offset, asked.offset + len(data) - 1)
            await exchange.answer_bytes(206, [data], ((b"content-range", span),))

    async def _put(self, exchange: Exchange, name: str) -> None:
        change = _parsed(journal_wire.parse_change, exchange.query)
        announced = exchange.header(b"content-length")
        is_small = (
            announced.isascii() and announced.isdigit() and len(announced) < 12 and (int(announced) <= LARGE_BODY_BYTES)
        )
        if is_small:
            await self._store(exchange, name, change)
            return
        async with self._large:
            await self._store(exchange, name, change)

    async def _store(self, exchange: Exchange, name: str, change: journal_wire.JournalChange) -> None:
        if change.offset is None:
            data = await exchange.read_body(journal_wire.WHOLE_BYTES_MAX)
            length = await self._pool.run(self._files.put, change.owner, name, data)
            await exchange.answer(201, wire.encode(length))
            return
        data = await exchange.read_body(journal_wire.APPEND_BYTES_MAX)
        length = await self.append(change.owner, name, change.offset, data)
        await exchange.answer(200, wire.encode(length))


def _file_name(path: str) -> str:
    name = path.removeprefix(f"{journal_wire.JOURNAL}/")
    _parsed(journal_wire.parse_name, name)
    return name


def _parsed(parse: Callable[[str], _T] | Callable[[bytes], _T], text: str | bytes) -> _T:
    try:
        return parse(text)  # type: ignore[arg-type]
    except ValueError as error:
        raise BadRequest(400, str(error)) from error
