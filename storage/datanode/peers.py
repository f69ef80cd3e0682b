"""The way to other datanodes, for what one fetches from another by a ticket: connections, and what answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from storage.base.address import Address, parse_address
from storage.base.errors import ChunkNotFound, Corrupt, FrostbyteError, NodeUnreachable
from storage.base.internal_client import Deadlines, InternalClient
from storage.datanode import wire

PEERS_MAX = 64
"""whose connections are kept while nothing uses them; beyond, the longest unused is closed"""


class _Peer:
    def __init__(self, client: InternalClient) -> None:
        self.client = client
        self.users = 0


class Peers:
    """Clients by address. tls_ca: to trust for https. Used on one event loop, closed once."""

    def __init__(self, *, tls_ca: str | None = None, deadlines: Deadlines = Deadlines()) -> None:  # noqa: B008 - immutable
        self._tls_ca = tls_ca
        self._deadlines = deadlines
        self._peers: dict[Address, _Peer] = {}

    @asynccontextmanager
    async def borrow(self, text: str) -> AsyncIterator[InternalClient]:
        """The client for an address, kept open at least until the block is left. NodeUnreachable when it is none."""
        try:
            address = parse_address(text)
        except ValueError as error:
            raise NodeUnreachable(f"no way to the source: {error}") from error
        # The token is left empty: each call brings the ticket of its chunk instead.
        peer = self._peers.pop(address, None) or _Peer(
            InternalClient(address, "", tls_ca=self._tls_ca, deadlines=self._deadlines)
        )
        self._peers[address] = peer
        peer.users += 1
        try:
            yield peer.client
        finally:
            peer.users -= 1
            await self._close_unused()

    async def close(self) -> None:
        """Close all connections."""
        while self._peers:
            await self._peers.popitem()[1].client.close()

    async def _close_unused(self) -> None:
        unused = [address for address, peer in self._peers.items() if not peer.users]
        for address in unused[: max(0, len(self._peers) - PEERS_MAX)]:
            await self._peers.pop(address).client.close()


def ticket_header(ticket: str) -> dict[str, str]:
    """What opens one chunk of a peer."""
    return {"Authorization": f"Ticket {ticket}"}


def failure_of(source: Address, status: int, headers: Mapping[str, str]) -> FrostbyteError:
    """What a source's answer means that is not the chunk."""
    name = headers.get(wire.ERROR_HEADER, "")
    if name in (ChunkNotFound.__name__, Corrupt.__name__):
        return wire.error_of(name, f"at the source {source}") or NodeUnreachable(name)
    return NodeUnreachable(f"the source {source} answered {status} {name[:100]}")
