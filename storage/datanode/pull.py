"""Copies one chunk from another datanode into the own store, so that a missing replica is made without the gateway's
network and without any key but a ticket for that one chunk.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from awscrt import checksums

from storage.base.address import Address, parse_address
from storage.base.errors import ChunkNotFound, Corrupt, NodeUnreachable
from storage.base.ids import ChunkId
from storage.base.internal_client import Deadlines, InternalClient
from storage.chunks.store import Buffer, ChunkReceipt, ChunkStore
from storage.datanode import wire

SOURCES_MAX = 64
"""peers whose connections are kept; beyond, the longest unused is closed"""


class ChunkPuller:
    """Callable as DatanodeApp's `pull`. tls_ca: to trust for https sources."""

    def __init__(self, store: ChunkStore, *, tls_ca: str | None = None, deadlines: Deadlines = Deadlines()) -> None:  # noqa: B008 - immutable
        self._store = store
        self._tls_ca = tls_ca
        self._deadlines = deadlines
        self._sources: dict[Address, InternalClient] = {}

    async def __call__(self, chunk_id: ChunkId, request: wire.PullRequest) -> ChunkReceipt:
        """The receipt of the own store. ChunkNotFound: the source does not hold it; Corrupt: the bytes that came are
        not the ones asked for, and are not kept; NodeUnreachable: the source; NodeFull, ChunkConflict: here."""
        try:
            address = parse_address(request.source)
        except ValueError as error:
            raise NodeUnreachable(f"no way to the source: {error}") from error
        source = await self._source(address)
        async with aclosing(self._fetch(source, chunk_id, request)) as body:
            return await self._store.put(chunk_id, request.length, body)

    async def close(self) -> None:
        """Close the connections to all sources."""
        for source in self._sources.values():
            await source.close()
        self._sources.clear()

    async def _source(self, address: Address) -> InternalClient:
        source = self._sources.pop(address, None)
        if source is None:
            # The token is left empty: each call brings the ticket of its chunk instead.
            source = InternalClient(address, "", tls_ca=self._tls_ca, deadlines=self._deadlines)
            if len(self._sources) >= SOURCES_MAX:
                await self._sources.pop(next(iter(self._sources))).close()
        self._sources[address] = source
        return source

    async def _fetch(
        self, source: InternalClient, chunk_id: ChunkId, request: wire.PullRequest
    ) -> AsyncGenerator[Buffer, None]:
        """The source's bytes. The last of them are handed on only when the digest is right: what is raised here is
        raised out of `put`, which then keeps nothing."""
        headers = {"Authorization": f"Ticket {request.ticket}"}
        async with source.open("GET", wire.chunk_target(chunk_id), headers=headers) as response:
            if response.status != 200:
                name = response.headers.get(wire.ERROR_HEADER, "")
                if name in (ChunkNotFound.__name__, Corrupt.__name__):
                    raise wire.error_of(name, "at the source") or NodeUnreachable(name)
                raise NodeUnreachable(f"the source {source.address} answered {response.status} {name[:100]}")
            if response.content_length != request.length:
                raise Corrupt(f"the source holds {response.content_length} bytes, not {request.length}")
            digest = 0
            left = request.length
            async for block in response.content.iter_any():
                digest = checksums.crc64nvme(block, digest)
                left -= len(block)
                if left <= 0 and digest.to_bytes(8, "big") != request.digest:
                    raise Corrupt("the source's bytes do not have the digest asked for")
                yield block
