"""Ranges over a real connection: who may have one, how a loan ends, and that a borrower learns of it in time."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from storage.base import internal_server
from storage.base.address import parse_address
from storage.base.clock import SystemClock
from storage.base.errors import ChunkError, Corrupt, NodeFull, NodeUnreachable
from storage.base.files import DiskFiles
from storage.base.internal_auth import access_token
from storage.chunks.disk import DiskChunkStore
from storage.chunks.footer import digest_of
from storage.chunks.lent_range import Ending
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.near_drafts import NotLent
from storage.chunks.near_range import NearRange, NewBody
from storage.datanode import range_app
from storage.datanode.app import DatanodeApp
from storage.datanode.intake import Intake
from storage.datanode.peers import Peers
from storage.datanode.range_client import RangeClient, RangeLoan
from storage.model import NodeState
from tests.storage.base.serving import serving
from tests.storage.chunks.borrowers import StoppingFiles, open_near, stop_before_slots
from tests.storage.chunks.conformance import chunk_id, put, some_bytes
from tests.storage.datanode.nodes import NODE_KEY

GROUP = str(chunk_id(1))[:29]
LENGTH = 1 << 20
DATA = some_bytes(70_000)
SETTLE_TIMEOUT_S = 30.0


class Lender:
    """A datanode."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DiskChunkStore(DiskFiles(), root, reserve_bytes=0)
        self.intake = Intake()
        self.app = DatanodeApp(
            self.store, NODE_KEY, SystemClock(), Peers(), intake=self.intake, lending=self.store, realm="r"
        )
        self.client: RangeClient

    @property
    def loans(self) -> int:
        return self.app._ranges._loans

    async def borrow(self) -> RangeLoan:
        return await asyncio.to_thread(self.client.borrow, GROUP, LENGTH)

    async def settled(self) -> None:
        """Nothing is lent any more."""
        await until(lambda: not self.loans)

    def near(self, loan: RangeLoan) -> NearRange:
        return open_near(StoppingFiles(), self.root, GROUP, loan.grant.inode, loan.is_lent)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture(params=["unix", "loopback"])
async def lender(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lender]:
    found = Lender(tmp_path / "node")
    address = f"unix:{tmp_path / 's'}" if request.param == "unix" else "http://127.0.0.1:0"
    async with serving(found.app, address) as bound:
        found.client = RangeClient(bound, access_token(NODE_KEY))
        yield found
    found.store.close()


async def test_a_loan_from_beginning_to_end(lender: Lender) -> None:
    """What was written is there; the room behind it is another range's."""
    loan = await lender.borrow()
    near = lender.near(loan)
    assert loan.is_lent()
    written = near.write([NewBody(chunk_id(1), loan.grant.begin, (DATA[:100], DATA[100:]))])
    assert written == [digest_of(DATA)]
    assert await lender.store.verify(chunk_id(1)) == digest_of(DATA)
    second = await lender.borrow()
    assert second.grant.begin == loan.grant.end == loan.grant.begin + LENGTH
    assert lender.loans == 2
    for one in (loan, second):
        await asyncio.to_thread(one.end, Ending())
        assert not one.is_lent()
    await lender.settled()
    assert lender.store.figures.chunk_count == 1
    with pytest.raises(NotLent):
        near.write([NewBody(chunk_id(2), loan.grant.begin + 90_112, (DATA,))])
    near.close()


async def test_a_sync_that_failed_is_told(lender: Lender) -> None:
    """Nothing more of that segment is lent."""
    loan = await lender.borrow()
    await asyncio.to_thread(loan.end, Ending((1, 2)))
    await lender.settled()
    with pytest.raises(ChunkError, match="takes no more chunks"):
        await lender.borrow()


async def test_a_borrower_that_says_nothing(lender: Lender) -> None:
    """It is gone, and what it wrote is there."""
    loan = await lender.borrow()
    near = lender.near(loan)
    near.write([NewBody(chunk_id(1), loan.grant.begin, (DATA,))])
    near.close()
    loan.hang_up()
    await lender.settled()
    assert await lender.store.verify(chunk_id(1)) == digest_of(DATA)
    assert lender.store.figures.chunk_count == 1


async def test_a_borrower_that_says_something_else(lender: Lender) -> None:
    """Counts as gone; it is hung up on."""
    loan = await lender.borrow()
    loan._socket.setblocking(True)
    loan._socket.sendall(bytes(134))
    await lender.settled()
    await until(lambda: not loan.is_lent())
    loan.hang_up()


@pytest.mark.parametrize("how", ["silence", "end of the datanode"])
async def test_a_borrower_that_stops_between_body_and_slot(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its range is taken back after a while, or its datanode ends and another one begins; the blocks are given back;
    when it goes on it is told, though its chunk has a slot by then."""
    monkeypatch.setattr(internal_server, "STALL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(internal_server, "STALL_CHECK_S", 0.1)
    monkeypatch.setattr(internal_server, "DRAIN_TIMEOUT_S", 0.2)
    lender = Lender(tmp_path / "node")
    stack = AsyncExitStack()
    address = await stack.enter_async_context(serving(lender.app, f"unix:{tmp_path / 's'}"))
    lender.client = RangeClient(address, access_token(NODE_KEY))
    await put(lender.store, chunk_id(7), DATA)
    loan = await lender.borrow()
    near = lender.near(loan)
    loop, is_stopped, going_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def stop() -> None:
        loop.call_soon_threadsafe(is_stopped.set)
        asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result(60)

    stop_before_slots(near, stop)
    body = NewBody(chunk_id(1), loan.grant.begin, (DATA,))
    writing = asyncio.create_task(asyncio.to_thread(near.write, [body]))
    await is_stopped.wait()
    if how == "silence":
        await lender.settled()
    else:
        await stack.aclose()
        lender.store.close()
        lender.store = DiskChunkStore(DiskFiles(), lender.root, reserve_bytes=0)
    await lender.store.purge_quarantine(0)
    going_on.set()
    with pytest.raises(NodeUnreachable):
        await writing
    with pytest.raises(Corrupt):
        await lender.store.verify(chunk_id(1))
    assert await lender.store.verify(chunk_id(7)) == digest_of(DATA)
    near.close()
    loan.hang_up()
    await stack.aclose()
    lender.store.close()


async def test_who_gets_none(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that drains, one with too many loans, and one that is asked without its token; and one that is away."""
    lender.intake.hear(NodeState.DRAINING)
    with pytest.raises(NodeFull):
        await lender.borrow()
    lender.intake.hear(NodeState.UP)
    monkeypatch.setattr(range_app, "LOANS_MAX", 1)
    loan = await lender.borrow()
    with pytest.raises(NodeUnreachable, match="too many"):
        await lender.borrow()
    await asyncio.to_thread(loan.end, Ending())
    await lender.settled()
    stranger = RangeClient(lender.client._address, "no token")
    with pytest.raises(NodeUnreachable):
        await asyncio.to_thread(stranger.borrow, GROUP, LENGTH)
    with pytest.raises(NodeUnreachable):
        await asyncio.to_thread(lender.client.borrow, "no group", LENGTH)
    with pytest.raises(NodeUnreachable):
        await asyncio.to_thread(lender.client.borrow, GROUP, LENGTH + 1)
    away = RangeClient(parse_address("unix:/nowhere"), "")
    with pytest.raises(NodeUnreachable):
        await asyncio.to_thread(away.borrow, GROUP, LENGTH)
    assert lender.loans == 0


async def test_a_datanode_that_lends_nothing(tmp_path: Path) -> None:
    """One in memory; and one that is asked in another way."""
    app = DatanodeApp(MemoryChunkStore(), NODE_KEY, SystemClock(), Peers())
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        client = RangeClient(address, access_token(NODE_KEY))
        with pytest.raises(NotLent):
            await asyncio.to_thread(client.borrow, GROUP, LENGTH)


def test_a_connection_of_tls_is_none_to_look_at() -> None:
    with pytest.raises(ValueError, match="this machine"):
        RangeClient(parse_address("https://node:1"), "")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 25\r\n\r\nshort",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nwhy",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nwhy",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 99999999\r\n\r\n" + bytes(1 << 18),
    ],
)
async def test_answers_of_something_else(tmp_path: Path, answer: bytes) -> None:
    """No loan, and no hang."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        made, _ = listener.accept()
        with made:
            made.recv(4096)
            made.settimeout(5)
            try:
                made.sendall(answer)
            except OSError:  # it hung up before the end
                return

    serving_once = asyncio.create_task(asyncio.to_thread(serve))
    began_s = time.monotonic()
    client = RangeClient(parse_address(f"unix:{tmp_path / 's'}"), "")
    with pytest.raises(NodeUnreachable):
        await asyncio.to_thread(client.borrow, GROUP, LENGTH)
    assert time.monotonic() - began_s < SETTLE_TIMEOUT_S
    await serving_once
    listener.close()
