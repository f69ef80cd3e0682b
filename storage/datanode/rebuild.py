"""Makes one fragment of an erasure-coded chunk out of those that other datanodes hold, without any key.

The sources are read side by side, STRIPES_AT_ONCE stripes at a time, so what is in memory is about a MiB for each of
them. Every source's bytes are held against its header and against the digest that it recorded when it stored them, so
that rot is told with the name of the node it is on. A source that fails is left out and the fragment is begun again, as
long as enough others were given.

The last bytes are handed to the store only when the whole has the digest asked for; what stops before leaves at most a
file in tmp/.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing

from storage.base.errors import ChunkError, Corrupt, FrostbyteError
from storage.base.gathering import gather_or_cancel
from storage.base.ids import ChunkId
from storage.base.internal_client import InternalClient
from storage.chunks.erasure import (
    FRAGMENT_HEADER_BYTES,
    SEALED_FRAME_BYTES,
    FragmentHeader,
    Striping,
    parse_fragment_header,
    stripe_coder,
)
from storage.chunks.footer import RunningDigest
from storage.chunks.store import Buffer, ChunkReceipt, ChunkStore
from storage.datanode import wire
from storage.datanode.peers import Peers, failure_of, ticket_header

STRIPES_AT_ONCE = 16

_log = logging.getLogger(__name__)


class SourceFailed(Exception):
    """This source does not give what it should. `reason`: as it is told to whoever asked."""

    def __init__(self, number: int, reason: FrostbyteError) -> None:
        super().__init__(str(reason))
        self.number = number
        self.reason = reason


class FragmentRebuilder:
    """See `rebuild`."""

    def __init__(self, store: ChunkStore, peers: Peers) -> None:
        self._store = store
        self._peers = peers

    async def rebuild(self, chunk_id: ChunkId, request: wire.RebuildRequest) -> ChunkReceipt:
        """The receipt of the own store. ChunkNotFound, Corrupt, NodeUnreachable: of the source that was the last one
        too many to fail; Corrupt as well when what comes out does not have the digest asked for, and is not kept;
        NodeFull, ChunkConflict: here."""
        left = list(request.sources)
        while True:
            try:
                return await self._rebuild(chunk_id, request, left[: request.needed])
            except SourceFailed as failure:
                left = [source for source in left if source.number != failure.number]
                if len(left) < request.needed:
                    raise failure.reason from failure
                _log.info("chunk %s: fragment %d is left out: %s", chunk_id, failure.number, failure)

    async def _rebuild(
        self, chunk_id: ChunkId, request: wire.RebuildRequest, sources: Sequence[wire.FragmentSource]
    ) -> ChunkReceipt:
        striping = Striping(request.needed, request.width, request.sealed_length)
        async with AsyncExitStack() as borrowed:
            opened = [
                _Source(source, await borrowed.enter_async_context(self._peers.borrow(source.address)), striping)
                for source in sources
            ]
            body = await borrowed.enter_async_context(aclosing(_make(chunk_id, request, striping, opened)))
            return await self._store.put(chunk_id, striping.fragment_length(request.number), body)


class _Source:
    """One fragment, read in order, a piece at a time."""

    def __init__(self, source: wire.FragmentSource, client: InternalClient, striping: Striping) -> None:
        self.number = source.number
        self._client = client
        self._headers = ticket_header(source.ticket)
        self._striping = striping
        self._length = striping.fragment_length(source.number)
        self._found = RunningDigest()
        self._recorded = ""

    async def fetch(self, chunk_id: ChunkId, first_stripe: int) -> memoryview:
        """The header with the first stripes, or the cells of the next ones, as far as the fragment has some.
        SourceFailed. Called for one run of STRIPES_AT_ONCE stripes after the other."""
        start = self._striping.cell(self.number, first_stripe).offset if first_stripe else 0
        end = FRAGMENT_HEADER_BYTES + (first_stripe + STRIPES_AT_ONCE) * SEALED_FRAME_BYTES
        expected = min(end, self._length) - start
        if expected <= 0:
            return memoryview(b"")
        try:
            headers = {"Range": wire.format_range(start, end - start), wire.DIGEST_WANTED_HEADER: "1", **self._headers}
            target = wire.chunk_target(chunk_id)
            answer = await self._client.call("GET", target, headers=headers, answer_bytes_max=end - start)
            if answer.status != 206:
                raise failure_of(self._client.address, answer.status, answer.headers)
            total = answer.headers.get("content-range", "").rpartition("/")[2]
            if total != str(self._length) or len(answer.body) != expected:
                raise Corrupt(f"fragment {self.number} at {self._client.address} has {total} bytes, not {self._length}")
        except (ChunkError, Corrupt) as error:
            raise SourceFailed(self.number, error) from error
        self._recorded = answer.headers.get(wire.DIGEST_HEADER, "")
        self._found.update(answer.body)
        return memoryview(answer.body)

    def read_header(self, piece: memoryview) -> bytes:
        """The chunk's header out of the first piece. SourceFailed unless the fragment is the one that it must be."""
        try:
            header = parse_fragment_header(piece)
        except Corrupt as error:
            raise self.damaged(str(error)) from error
        needed, width, sealed_length = self._striping
        if header != FragmentHeader(header.chunk_header, needed, width, self.number, sealed_length):
            raise self.damaged("it is of another chunk or number")
        return header.chunk_header

    def check_whole(self) -> None:
        """After the last piece. SourceFailed when the bytes are not those that the source stored."""
        if self._found.receipt().digest.hex() != self._recorded:
            raise self.damaged("its bytes do not have its digest")

    def damaged(self, what: str) -> SourceFailed:
        """To be raised."""
        return SourceFailed(self.number, Corrupt(f"fragment {self.number} at {self._client.address}: {what}"))


async def _make(
    chunk_id: ChunkId, request: wire.RebuildRequest, striping: Striping, sources: Sequence[_Source]
) -> AsyncGenerator[Buffer, None]:
    """The fragment's bytes. SourceFailed; Corrupt instead of the last of them when they are not the ones asked for."""
    found = RunningDigest()
    for first in range(0, striping.stripe_count, STRIPES_AT_ONCE):
        stripes = range(first, min(first + STRIPES_AT_ONCE, striping.stripe_count))
        fetched = await _fetch_all(chunk_id, first, sources)
        made: list[Buffer] = []
        if not first:
            made.append(striping.header(_agree(sources, fetched), request.number))
            fetched = [piece[FRAGMENT_HEADER_BYTES:] for piece in fetched]
        pieces = {source.number: piece for source, piece in zip(sources, fetched, strict=True)}
        made += await asyncio.to_thread(_rebuild_cells, striping, request.number, stripes, pieces)
        for block in made:
            found.update(block)
        if stripes.stop == striping.stripe_count:
            for source in sources:
                source.check_whole()
            if found.receipt().digest != request.digest:
                raise Corrupt("the rebuilt fragment does not have the digest asked for")
        for block in made:
            yield block


async def _fetch_all(chunk_id: ChunkId, first_stripe: int, sources: Sequence[_Source]) -> list[memoryview]:
    """The next piece of each source, in order. SourceFailed of the first that fails; the others are given up."""
    return await gather_or_cancel(source.fetch(chunk_id, first_stripe) for source in sources)


def _agree(sources: Sequence[_Source], pieces: Sequence[memoryview]) -> bytes:
    """The header of the sealed chunk, as most of the fragments have it. SourceFailed of one that has another."""
    headers = [source.read_header(piece) for source, piece in zip(sources, pieces, strict=True)]
    [(common, _)] = Counter(headers).most_common(1)
    for source, header in zip(sources, headers, strict=True):
        if header != common:
            raise source.damaged("its chunk's header is not that of the others")
    return common


def _rebuild_cells(striping: Striping, number: int, stripes: range, pieces: Mapping[int, memoryview]) -> list[Buffer]:
    """The cells of fragment `number`, out of those of others. Blocks for some milliseconds."""
    coder = stripe_coder(striping.needed, striping.width)
    made: list[Buffer] = []
    for stripe in stripes:
        start = (stripe - stripes.start) * SEALED_FRAME_BYTES
        cells = {given: piece[start : start + SEALED_FRAME_BYTES] for given, piece in pieces.items()}
        [cell] = coder.rebuild(cells, [number], striping.parity_length(stripe))
        made.append(cell[: striping.cell(number, stripe).length])
    return made
