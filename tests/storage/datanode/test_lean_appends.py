"""Appends to the journal past the parser, beside the same requests on the ordinary road: the same answers to the byte,
and the same files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.address import Address
from storage.base.clock import ManualClock
from storage.base.files import DiskFiles
from storage.base.internal_auth import access_token, bearer
from storage.base.internal_server import BoundedProtocol
from storage.base.lean_protocol import LeanProtocol
from storage.chunks.memory import MemoryChunkStore
from storage.datanode import journal_wire
from storage.datanode.app import DatanodeApp
from storage.datanode.journal_app import JournalRoutes
from storage.datanode.journal_client import JournalClient
from storage.datanode.journal_files import JournalFiles
from storage.datanode.journal_wire import segment_name, snapshot_name
from storage.datanode.lean_appends import AT_ONCE_MAX, LEAN_BYTES_MAX, LeanAppends
from storage.datanode.peers import Peers
from tests.storage.base.serving import exchange_bytes, serving
from tests.storage.datanode.nodes import NODE_KEY

FIRST, SECOND = (1).to_bytes(8, "big") + bytes(8), (2).to_bytes(8, "big") + bytes(8)
SEGMENT = segment_name(FIRST)
TOKEN = bearer(access_token(NODE_KEY))


class Served(NamedTuple):
    """A datanode with journal files."""

    app: DatanodeApp
    address: Address
    directory: Path

    @property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.directory / "journal").iterdir()}


@asynccontextmanager
async def served(directory: Path, *, lean: bool) -> AsyncIterator[Served]:
    directory.mkdir()
    journal = JournalRoutes(JournalFiles(DiskFiles(), directory, 0))
    app = DatanodeApp(MemoryChunkStore(), NODE_KEY, ManualClock(), Peers(), journal=journal)
    protocol = partial(LeanProtocol, app.lean_calls) if lean else BoundedProtocol
    async with serving(app, f"unix:{directory / 's'}", make_protocol=protocol) as address:
        yield Served(app, address, directory)
    journal.close()


def request(target: str, body: bytes, token: str = TOKEN) -> bytes:
    """As InternalLine spells it."""
    head = f"PUT {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def append_target(name: str, owner: bytes, offset: int) -> str:
    return journal_wire.change_target(journal_wire.file_target(name), owner, offset)


async def test_the_answers_and_the_files_are_the_same(tmp_path: Path) -> None:
    """Of what is taken, of what is refused at once, and of what is refused after the body."""
    whole = journal_wire.change_target(journal_wire.file_target(SEGMENT), FIRST)
    asked = [
        request(whole, b"header"),
        request(append_target(SEGMENT, FIRST, 6), b"record"),
        request(append_target(SEGMENT, FIRST, 6), b"record"),  # again
        request(append_target(SEGMENT, FIRST, 7), b"record"),  # another length
        request(append_target(SEGMENT, FIRST, 12), bytes(LEAN_BYTES_MAX)),
        request(append_target(SEGMENT, FIRST, 12 + LEAN_BYTES_MAX), bytes(LEAN_BYTES_MAX + 1)),
        request(append_target(segment_name(SECOND), FIRST, 6), b"nowhere"),
        request(append_target(snapshot_name(FIRST, 3), FIRST, 0), b"never put"),
        request(append_target("fence", FIRST, 0), b"no journal file"),
        request(append_target(SEGMENT, FIRST, 12) + "&offset=3", b"two offsets"),
        request(append_target(SEGMENT, FIRST, 12)[:-2] + "x", b"no number"),
        request(append_target(SEGMENT, FIRST, 10**11), b"beyond the bound"),
        request(append_target(SEGMENT, SECOND, 5), b"fences, and has another length"),
        request(append_target(SEGMENT, FIRST, 12), b"fenced"),
        request(append_target(SEGMENT, SECOND, 12), b"who", token="Bearer " + 64 * "0"),
        request(append_target(SEGMENT, SECOND, 12), b""),
    ]
    async with served(tmp_path / "lean", lean=True) as lean, served(tmp_path / "plain", lean=False) as plain:
        for one in asked:
            close = request("/v1/space", b"").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            answers = [await exchange_bytes(node.address, one + close) for node in (lean, plain)]
            assert answers[0] == answers[1], one[:200]
        assert lean.files == plain.files
        assert lean.app.requests == plain.app.requests == 0


async def test_what_the_client_sends_goes_past_the_parser(tmp_path: Path) -> None:
    """Or all this would be for nothing."""
    async with served(tmp_path / "n", lean=True) as node:
        begun = []
        real = node.app.lean_calls.begin
        node.app.lean_calls.begin = lambda head: begun.append(real(head)) or begun[-1]  # type: ignore[method-assign]
        client = JournalClient(node.address, access_token(NODE_KEY))
        await client.put(FIRST, SEGMENT, b"header")
        for number in range(3):
            offset = 6 + 6 * number
            await asyncio.to_thread(lambda at=offset: client.start_append(FIRST, SEGMENT, at, b"record", 5.0)())
        await client.close()
        assert sum(call is not None for call in begun) == 3
        assert node.files[SEGMENT].rstrip(b"\0") == b"header" + 3 * b"record"


async def test_only_so_many_are_held_at_once() -> None:
    """The others go the ordinary road."""
    appends = LeanAppends(lambda *_: asyncio.get_running_loop().create_future())
    target = append_target(SEGMENT, FIRST, 6).removeprefix("/v1/journal/")
    held = [appends.begin(target, 100) for _ in range(AT_ONCE_MAX)]
    assert None not in held
    assert appends.begin(target, 100) is None
    assert held[0] is not None
    held[0].close()
    assert appends.begin(target, 100) is not None


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), st.integers(0, 10**12 - 1))
def test_targets_are_read_as_the_ordinary_road_reads_them(segment: bytes, owner: bytes, offset: int) -> None:
    """Whatever the ids and the offset are."""
    seen: list[tuple[object, ...]] = []
    target = append_target(segment_name(segment), owner, offset).removeprefix("/v1/journal/")
    work = LeanAppends(lambda *asked: seen.append(asked)).begin(target, 3)  # type: ignore[arg-type, func-returns-value]
    assert work is not None
    work.start([b"a", bytearray(b"b"), memoryview(b"c")])
    name, _, query = target.partition("?")
    change = journal_wire.parse_change(query.encode())
    assert seen == [(change.owner, name, change.offset, b"abc")]


@pytest.mark.parametrize("told", ["", "segment-1?owner=1&offset=1", "segment-" + 32 * "A" + "?owner=" + 32 * "0"])
def test_other_targets_are_for_the_ordinary_road(told: str) -> None:
    assert LeanAppends(lambda *_: asyncio.get_running_loop().create_future()).begin(told, 3) is None
