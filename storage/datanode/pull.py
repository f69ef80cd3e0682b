"""Copies one chunk from another datanode into the own store, so that a missing replica is made without the gateway's
network and without any key but a ticket for that one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from awscrt import checksums

from storage.base.errors import Corrupt
from storage.base.ids import ChunkId
from storage.base.internal_client import InternalClient
from storage.chunks.store import Buffer, ChunkReceipt, ChunkStore
from storage.datanode import wire
from storage.datanode.peers import Peers, failure_of, ticket_header


class ChunkPuller:
    """See `pull`."""

    def __init__(self, store: ChunkStore, peers: Peers) -> None:
        self._store = store
        self._peers = peers

    async def pull(self, chunk_id: ChunkId, request: wire.PullRequest) -> ChunkReceipt:
        """The receipt of the own store. ChunkNotFound: the source does not hold it; Corrupt: the bytes that came are
        not the ones asked for, and are not kept; NodeUnreachable: the source; NodeFull, ChunkConflict: here."""
        async with self._peers.borrow(request.source) as source:
            async with aclosing(self._fetch(source, chunk_id, request)) as body:
                return await self._store.put(chunk_id, request.length, body)

    async def _fetch(
        self, source: InternalClient, chunk_id: ChunkId, request: wire.PullRequest
    ) -> AsyncGenerator[Buffer, None]:
        """The source's bytes. The last of them are handed on only when the digest is right: what is raised here is
        raised out of `put`, which then keeps nothing."""
        target = wire.chunk_target(chunk_id)
        async with source.open("GET", target, headers=ticket_header(request.ticket)) as response:
            if response.status != 200:
                raise failure_of(source.address, response.status, response.headers)
            if response.content_length != request.length:
                raise Corrupt(f"the source holds {response.content_length} bytes, not {request.length}")
            digest = 0
            left = request.length
            async for block in response.blocks():
                digest = checksums.crc64nvme(block, digest)
                left -= len(block)
                if left <= 0 and digest.to_bytes(8, "big") != request.digest:
                    raise Corrupt("the source's bytes do not have the digest asked for")
                yield block
