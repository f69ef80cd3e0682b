"""A sealed chunk as it is, for who has no keys: from one replica, or from as many fragments as are needed, in order.

What comes out is proven by the digests that the row has, and not before the end: the last frames are handed out when
every piece that was read has its digest. Whoever stores what he is handed, and stops when this raises, stores nothing
that is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from cluster.deadlines import Deadlines
from cluster.maintenance.pieces import receipt_of, redundancy_of, stored_id_of, striping_of
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from storage.base.errors import ChunkError, Corrupt, FrostbyteError, NodeUnreachable, Unavailable
from storage.base.gathering import gather_or_cancel
from storage.base.ids import ChunkId
from storage.chunks.erasure import FRAGMENT_HEADER_BYTES, Striping, parse_fragment_header, stripe_coder
from storage.chunks.footer import RunningDigest
from storage.chunks.store import Buffer
from storage.crypto.envelope import HEADER_BYTES, SEALED_FRAME_BYTES, sealed_length
from storage.metadata.interface import ChunkPlace

SPAN_FRAMES = 16
"""asked for at once, over all pieces: about a MiB"""


class SourceFailed(Exception):
    """This node does not give the piece that it should. `reason`: an error of the tree."""

    def __init__(self, node: int, reason: FrostbyteError) -> None:
        super().__init__(f"node {node}: {reason}")
        self.node = node
        self.reason = reason


class _Span(NamedTuple):
    """Of a piece, in bytes."""

    offset: int
    length: int


class SealedReader:
    """One per job."""

    def __init__(self, nodes: NodePool, throttle: Throttle, deadlines: Deadlines) -> None:
        self._nodes = nodes
        self._throttle = throttle
        self._deadlines = deadlines

    def read(self, place: ChunkPlace, sources: Mapping[int, int]) -> AsyncGenerator[Buffer, None]:
        """The header, then one frame after the other. sources: position → node, as many as are needed. SourceFailed,
        before the last frame where the bytes are not what was stored."""
        if redundancy_of(place).is_erasure:
            return self._read_fragments(place, sources)
        [(_, node)] = sources.items()
        return self._read_replica(place, node)

    async def _read_replica(self, place: ChunkPlace, node: int) -> AsyncGenerator[Buffer, None]:
        end = sealed_length(place.length)
        piece = _Piece(place, 0, node)
        for span in _cut(end, HEADER_BYTES):
            [data] = await self._fetch_all([(piece, span)])
            if span.offset + span.length == end:
                piece.check_whole()
            if not span.offset:
                yield data[:HEADER_BYTES]
                data = data[HEADER_BYTES:]
            for at in range(0, len(data), SEALED_FRAME_BYTES):
                yield data[at : at + SEALED_FRAME_BYTES]

    async def _read_fragments(self, place: ChunkPlace, sources: Mapping[int, int]) -> AsyncGenerator[Buffer, None]:
        striping = striping_of(place)
        pieces = [_Piece(place, position, node) for position, node in sources.items()]
        step = max(1, SPAN_FRAMES // striping.needed)
        for first in range(0, striping.stripe_count, step):
            stripes = range(first, min(first + step, striping.stripe_count))
            spans = [(piece, _span_of(striping, piece.position, stripes)) for piece in pieces]
            fetched = await self._fetch_all(spans)
            if stripes.stop == striping.stripe_count:
                for piece in pieces:
                    piece.check_whole()
            if not first:
                headers = [piece.check_header(data) for piece, data in zip(pieces, fetched, strict=True)]
                fetched = [data[FRAGMENT_HEADER_BYTES:] for data in fetched]
                yield headers[0]
            by_position = {piece.position: data for piece, data in zip(pieces, fetched, strict=True)}
            for frame in _join(striping, stripes, by_position):
                yield frame

    async def _fetch_all(self, spans: list[tuple[_Piece, _Span]]) -> list[memoryview]:
        """Side by side, in the order given. SourceFailed of the first that fails; the others are given up."""
        await self._throttle.take(sum(span.length for _, span in spans))
        return await gather_or_cancel(self._fetch(piece, span) for piece, span in spans)

    async def _fetch(self, piece: _Piece, span: _Span) -> memoryview:
        try:
            data = await self._get(piece.node, piece.chunk_id, span) if span.length else b""
        except (ChunkError, Corrupt, Unavailable) as error:
            raise SourceFailed(piece.node, error) from error
        piece.found.update(data)
        return memoryview(data)

    async def _get(self, node: int, chunk_id: ChunkId, span: _Span) -> bytes:
        blocks: list[bytes] = []
        sealed = self._nodes.store(node).get(chunk_id, *span)
        try:
            async with asyncio.timeout(self._deadlines.first_byte_s) as timeout:
                async for block in sealed:
                    timeout.reschedule(asyncio.get_running_loop().time() + self._deadlines.read_stall_s)
                    blocks.append(block)
        except TimeoutError:
            raise NodeUnreachable(f"node {node} sent nothing in time") from None
        finally:
            if isinstance(sealed, AsyncGenerator):
                await sealed.aclose()
        data = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        if len(data) != span.length:
            raise Corrupt(f"node {node} has {len(data)} of {span.length} bytes of a piece")
        return data


class _Piece:
    """One that is read, and what its bytes were so far."""

    def __init__(self, place: ChunkPlace, position: int, node: int) -> None:
        self.position = position
        self.node = node
        self.chunk_id = stored_id_of(place)
        self.found = RunningDigest()
        self._place = place

    def check_header(self, data: memoryview) -> bytes:
        """The chunk's header out of the first bytes of a fragment. SourceFailed unless it is the right one."""
        try:
            header = parse_fragment_header(data)
        except Corrupt as error:
            raise SourceFailed(self.node, error) from error
        if header[1:] != (*striping_of(self._place)[:2], self.position, sealed_length(self._place.length)):
            raise SourceFailed(self.node, Corrupt("it holds a fragment of another number or chunk"))
        return header.chunk_header

    def check_whole(self) -> None:
        """After the last byte. SourceFailed when they are not those that were stored."""
        if self.found.receipt() != receipt_of(self._place, self.position):
            raise SourceFailed(self.node, Corrupt("its bytes do not have their digest"))


def _cut(end: int, header_bytes: int) -> Iterator[_Span]:
    """SPAN_FRAMES frames at a time, the header with the first."""
    step = SPAN_FRAMES * SEALED_FRAME_BYTES
    borders = [0, *range(header_bytes + step, end, step), end]
    return (_Span(start, stop - start) for start, stop in pairwise(borders))


def _span_of(striping: Striping, position: int, stripes: range) -> _Span:
    """The cells of a fragment in these stripes, its header with the first. Length 0 where it has none."""
    last = striping.cell(position, stripes.stop - 1)
    start = striping.cell(position, stripes.start).offset if stripes.start else 0
    return _Span(start, last.offset + last.length - start)


def _join(striping: Striping, stripes: range, pieces: Mapping[int, memoryview]) -> Iterator[Buffer]:
    """The frames of these stripes, in order. What was not read is rebuilt from what was."""
    coder = stripe_coder(striping.needed, striping.width)
    for stripe in stripes:
        start = (stripe - stripes.start) * SEALED_FRAME_BYTES
        cells: dict[int, Buffer] = {
            position: data[start : start + striping.cell(position, stripe).length] for position, data in pieces.items()
        }
        lengths = [striping.cell(position, stripe).length for position in range(striping.needed)]
        missing = [position for position, length in enumerate(lengths) if length and position not in cells]
        rebuilt = coder.rebuild(cells, missing, striping.parity_length(stripe))
        cells |= {position: cell[: lengths[position]] for position, cell in zip(missing, rebuilt, strict=True)}
        yield from (cells[position] for position, length in enumerate(lengths) if length)
