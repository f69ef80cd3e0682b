"""The journal's routes and their client over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.address import Address, parse_address
from storage.base.clock import ManualClock
from storage.base.errors import (
    JournalConflict,
    JournalError,
    JournalFenced,
    JournalFileNotFound,
    NodeFull,
    NodeUnreachable,
)
from storage.base.files import DiskFiles
from storage.base.internal_auth import access_token, bearer
from storage.chunks.memory import MemoryChunkStore
from storage.datanode import journal_wire
from storage.datanode.app import DatanodeApp
from storage.datanode.journal_app import JournalRoutes
from storage.datanode.journal_client import JournalClient
from storage.datanode.journal_files import JournalFiles
from storage.datanode.journal_wire import JournalFile, segment_name, snapshot_name
from storage.datanode.peers import Peers
from tests.storage.base.serving import exchange_bytes, serving
from tests.storage.datanode.nodes import NODE_KEY

REALM = f"{'c1' * 16}/{'ab' * 16}"
FIRST, SECOND = (1).to_bytes(8, "big") + bytes(8), (2).to_bytes(8, "big") + bytes(8)
SEGMENT, PIECE = segment_name(FIRST), snapshot_name(FIRST, 3)
TIMEOUT_S = 10.0


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[Address]:
    """A served datanode."""
    journal = JournalRoutes(JournalFiles(DiskFiles(), tmp_path, 0))
    app = DatanodeApp(MemoryChunkStore(), NODE_KEY, ManualClock(), Peers(), journal=journal, realm=REALM)
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        yield address
    journal.close()


@pytest.fixture
async def client(address: Address) -> AsyncIterator[JournalClient]:
    client = JournalClient(address, access_token(NODE_KEY))
    yield client
    await client.close()


async def append(client: JournalClient, owner: bytes, name: str, offset: int, data: bytes, timeout_s: float) -> None:
    """As the writer's thread does it."""
    await asyncio.to_thread(lambda: client.start_append(owner, name, offset, data, timeout_s)())


async def test_files_go_there_and_come_back(client: JournalClient) -> None:
    """Whole, appended to, by ranges, listed, deleted."""
    large = bytes(range(256)) * 20_000
    await client.put(FIRST, SEGMENT, b"header")
    await append(client, FIRST, SEGMENT, 6, b"record", TIMEOUT_S)
    await append(client, FIRST, SEGMENT, 6, b"record", TIMEOUT_S)
    await client.put(FIRST, PIECE, large)
    assert await client.list() == (FIRST, [JournalFile(SEGMENT, 12), JournalFile(PIECE, len(large))])
    assert await client.read(SEGMENT, 3, 6) == b"derrec"
    assert await client.read(SEGMENT, 12, 6) == b""
    limit = journal_wire.READ_BYTES_MAX
    assert await client.read(PIECE, 0, limit) + await client.read(PIECE, limit, limit) == large
    assert await client.delete(FIRST, PIECE) is True
    assert await client.delete(FIRST, PIECE) is False


async def test_refusals_come_by_name(client: JournalClient) -> None:
    """As JournalFiles raises them."""
    await client.put(FIRST, SEGMENT, b"header")
    with pytest.raises(JournalConflict):
        await client.put(FIRST, SEGMENT, b"other!")
    with pytest.raises(JournalConflict):
        await append(client, FIRST, SEGMENT, 5, b"x", TIMEOUT_S)
    with pytest.raises(JournalFileNotFound):
        await client.read(PIECE, 0, 10)
    assert (await client.fence(SECOND)).fence == SECOND
    for late in (
        append(client, FIRST, SEGMENT, 6, b"x", TIMEOUT_S),
        client.put(FIRST, PIECE, b"x"),
        client.delete(FIRST, SEGMENT),
        client.fence(FIRST),
    ):
        with pytest.raises(JournalFenced):
            await late


async def test_a_node_that_is_away_is_unreachable(tmp_path: Path) -> None:
    """As every call of a datanode."""
    client = JournalClient(parse_address(f"unix:{tmp_path / 'nobody'}"), access_token(NODE_KEY))
    with pytest.raises(NodeUnreachable):
        await client.list()
    await client.close()


async def test_a_full_node_is_told(tmp_path: Path) -> None:
    """It is the one thing that another node may not be."""
    journal = JournalRoutes(JournalFiles(DiskFiles(), tmp_path, 1 << 62))
    app = DatanodeApp(MemoryChunkStore(), NODE_KEY, ManualClock(), Peers(), journal=journal)
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        client = JournalClient(address, access_token(NODE_KEY))
        with pytest.raises(NodeFull):
            await client.put(FIRST, SEGMENT, b"header")
        await client.close()
    journal.close()


async def _status(
    address: Address, method: str, target: str, token: str | None, body: bytes = b""
) -> tuple[int, bytes]:
    head = f"{method} {target} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    if token is not None:
        head += f"authorization: {token}\r\n"
    answer = await exchange_bytes(address, head.encode() + b"\r\n" + body)
    return int(answer.split(b" ")[1]), answer.lower()


async def test_who_brings_no_token_learns_the_node_and_nothing_else(address: Address) -> None:
    """With the internal key its token can be derived."""
    for method, target in (
        ("GET", journal_wire.JOURNAL),
        ("POST", journal_wire.change_target(journal_wire.FENCE, FIRST)),
        ("GET", journal_wire.file_target(SEGMENT)),
        ("PUT", journal_wire.change_target(journal_wire.file_target(SEGMENT), FIRST)),
        ("DELETE", journal_wire.change_target(journal_wire.file_target(SEGMENT), FIRST)),
    ):
        for token in (None, bearer("0" * 64)):
            status, answer = await _status(address, method, target, token)
            assert status == 401
            assert f'www-authenticate: bearer realm="{REALM}"'.encode() in answer


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", f"{journal_wire.JOURNAL}/fence", 400),
        ("GET", f"{journal_wire.JOURNAL}/..%2fnode.json", 400),
        ("GET", f"{journal_wire.JOURNAL}x", 400),
        ("GET", journal_wire.file_target(SEGMENT), 400),
        ("PUT", journal_wire.file_target(SEGMENT), 400),
        ("PUT", f"{journal_wire.file_target(SEGMENT)}?owner=00", 400),
        ("POST", journal_wire.file_target(SEGMENT), 405),
        ("POST", journal_wire.FENCE, 400),
    ],
)
async def test_what_is_none_of_the_routes_is_refused(address: Address, method: str, target: str, status: int) -> None:
    """Before anything is touched."""
    assert (await _status(address, method, target, bearer(access_token(NODE_KEY))))[0] == status


async def test_a_body_above_the_bound_is_not_read(address: Address) -> None:
    """Its length is enough."""
    target = journal_wire.change_target(journal_wire.file_target(SEGMENT), FIRST)
    token = bearer(access_token(NODE_KEY))
    head = f"PUT {target} HTTP/1.1\r\nhost: h\r\nauthorization: {token}\r\ncontent-length: {(64 << 20) + 1}\r\n\r\n"
    answer = await asyncio.wait_for(exchange_bytes(address, head.encode()), TIMEOUT_S)
    assert b" 413 " in answer.split(b"\r\n")[0]


async def test_bytes_that_are_too_many_for_an_append_are_refused(client: JournalClient) -> None:
    """A journal file is bounded."""
    await client.put(FIRST, SEGMENT, b"header")
    with pytest.raises((JournalError, NodeUnreachable)):
        await append(client, FIRST, SEGMENT, 6, bytes(journal_wire.APPEND_BYTES_MAX + 1), TIMEOUT_S)
