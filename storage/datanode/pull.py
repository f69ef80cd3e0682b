"""Copies chunks from other datanodes into the own store, so that missing replicas are made without the gateway's
network and without any key but a ticket for each chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from awscrt import checksums

from storage.base.errors import ChunkError, ChunkTruncated, Corrupt
from storage.base.ids import ChunkId
from storage.base.internal_client import InternalClient
from storage.chunks.store import Buffer, ChunkReceipt, ChunkStore
from storage.datanode import wire
from storage.datanode.peers import Peers, failure_of, ticket_header

FETCHES_AT_ONCE_MAX = 16
"""of one batch"""


class ChunkPuller:
    """`pull` one of any size, or `pull_many` small ones."""

    def __init__(self, store: ChunkStore, peers: Peers) -> None:
        self._store = store
        self._peers = peers

    async def pull(self, chunk_id: ChunkId, request: wire.PullRequest) -> ChunkReceipt:
        """The receipt of the own store. ChunkNotFound: the source does not hold it; Corrupt: the bytes that came are
        not the ones asked for, and are not kept; NodeUnreachable: the source; NodeFull, ChunkConflict: here."""
        async with self._peers.borrow(request.source) as source:
            async with aclosing(self._fetch(source, chunk_id, request)) as body:
                return await self._store.put(chunk_id, request.length, body)

    async def pull_many(
        self, pulls: Sequence[tuple[ChunkId, wire.PullRequest]]
    ) -> list[ChunkReceipt | ChunkError | Corrupt]:
        """As `pull`, one outcome for each, with one sync for many. All of their bytes are in memory."""
        gate = asyncio.Semaphore(FETCHES_AT_ONCE_MAX)
        fetched = await asyncio.gather(*(self._fetch_whole(gate, *pull) for pull in pulls))
        whole = [
            (chunk_id, data) for (chunk_id, _), data in zip(pulls, fetched, strict=True) if isinstance(data, bytes)
        ]
        stored = iter(await self._store.put_many(whole))
        return [next(stored) if isinstance(data, bytes) else data for data in fetched]

    async def _fetch_whole(
        self, gate: asyncio.Semaphore, chunk_id: ChunkId, request: wire.PullRequest
    ) -> bytes | ChunkError | Corrupt:
        try:
            async with gate, self._peers.borrow(request.source) as source:
                data = b"".join([block async for block in self._fetch(source, chunk_id, request)])
        except (ChunkError, Corrupt) as error:
            return error
        return data if len(data) == request.length else ChunkTruncated("the source sent less than it announced")

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
