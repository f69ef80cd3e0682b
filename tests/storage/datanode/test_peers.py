"""Connections to other datanodes: shared, bounded, and never closed under somebody who uses them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from storage.base.address import Address
from storage.base.errors import ChunkNotFound, Corrupt, NodeUnreachable
from storage.datanode import peers as peers_module
from storage.datanode.peers import Peers, failure_of
from storage.datanode.wire import ERROR_HEADER

ADDRESSES = [f"unix:/nonexistent/{number}" for number in range(5)]


def _known(peers: Peers) -> list[str]:
    return list(map(str, peers._peers))


async def test_unused_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest unused is closed first."""
    monkeypatch.setattr(peers_module, "PEERS_MAX", 2)
    peers = Peers()
    for address in (*ADDRESSES[:2], ADDRESSES[0], ADDRESSES[2]):
        async with peers.borrow(address) as client:
            assert str(client.address) == address
    assert _known(peers) == [ADDRESSES[0], ADDRESSES[2]]
    await peers.close()
    assert not _known(peers)


async def test_what_is_used_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound, and by two at once until both have done."""
    monkeypatch.setattr(peers_module, "PEERS_MAX", 1)
    peers = Peers()
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        longest = await second.enter_async_context(peers.borrow(ADDRESSES[0]))
        assert await first.enter_async_context(peers.borrow(ADDRESSES[0])) is longest
        for address in ADDRESSES[1:]:
            await first.enter_async_context(peers.borrow(address))
        assert sorted(_known(peers)) == ADDRESSES
        await first.aclose()
        assert _known(peers) == [ADDRESSES[0]]
    await peers.close()


async def test_what_is_no_address_leads_nowhere() -> None:
    """As if nobody answered there."""
    with pytest.raises(NodeUnreachable, match="no way"):
        async with Peers().borrow("file:/etc/passwd"):
            pass


@pytest.mark.parametrize(
    ("status", "name", "expected"),
    [
        (404, "ChunkNotFound", ChunkNotFound),
        (422, "Corrupt", Corrupt),
        (401, "Unauthorized", NodeUnreachable),
        (507, "NodeFull", NodeUnreachable),
        (500, "", NodeUnreachable),
    ],
)
def test_what_an_answer_means(status: int, name: str, expected: type[Exception]) -> None:
    """Only what is said of the chunk is passed on; the source is named."""
    error = failure_of(Address("unix", path="/peer"), status, {ERROR_HEADER: name})
    assert type(error) is expected
    assert "unix:/peer" in str(error)
