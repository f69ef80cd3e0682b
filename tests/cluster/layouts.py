"""Lays blobs out as fragments (or replicas) by hand: what the rewrite job does, without the job."""

from __future__ import annotations

import msgspec

from cluster.chunk_rows import page_chunks
from cluster.chunk_slice import make_layout
from cluster.redundancy import parse_redundancy
from storage.base.ids import ChunkId, stored_chunk_id
from storage.chunks.erasure import Striping
from storage.chunks.footer import digest_of
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import ChunkLayout, Relayout
from storage.model import Blob, Chunk
from tests.cluster.world import World
from tests.storage.chunks.fragments import join_chunk, split_chunk


async def read_blobs(world: World, key: bytes) -> list[Blob]:
    """The blobs of an object with all of their rows."""
    read = await world.metadata.read_version(world.bucket.bucket_id, key)
    return [await _with_all_rows(world, blob) for blob in read.blobs if blob.inline is None]


async def _with_all_rows(world: World, blob: Blob) -> Blob:
    rows = [chunk async for _, page in page_chunks(world.metadata, blob) for chunk in page]
    return msgspec.structs.replace(blob, chunks=tuple(rows))


async def lay_out(world: World, key: bytes, redundancy: str, *, keep_old: bool = False) -> None:
    """Every blob of the object anew, in this redundancy, on the nodes in turn; the pieces of before are deleted."""
    for blob in await read_blobs(world, key):
        rows = tuple([await _store_anew(world, blob, chunk, redundancy) for chunk in blob.chunks])
        assert await world.metadata.apply(Relayout(blob.blob_id, blob.generation, redundancy, rows))
        if not keep_old:
            for chunk in blob.chunks:
                old = stored_chunk_id(blob.blob_id, chunk.index, blob.generation)
                for number in filter(None, chunk.nodes):
                    await world.nodes[number].inner.delete_many([old])


async def _store_anew(world: World, blob: Blob, chunk: Chunk, redundancy: str) -> ChunkLayout:
    sealed = sealed_chunk(world, blob, chunk)
    target = parse_redundancy(redundancy)
    pieces = split_chunk(sealed, target.needed, target.width) if target.is_erasure else [sealed] * target.width
    numbers = sorted(world.nodes)
    nodes = tuple(numbers[(chunk.index + at) % len(numbers)] for at in range(target.width))
    chunk_id = stored_chunk_id(blob.blob_id, chunk.index, blob.generation + 1)
    for number, piece in zip(nodes, pieces, strict=True):
        await world.nodes[number].inner.put_many([(chunk_id, piece)])
    digests = [digest_of(piece).digest for piece in pieces]
    return ChunkLayout(chunk.index, b"".join(digests) if target.is_erasure else digests[0], nodes)


def sealed_chunk(world: World, blob: Blob, chunk: Chunk) -> bytes:
    """Whole, out of what the nodes hold."""
    layout = make_layout(blob.blob_id, chunk.index, blob.generation, blob.redundancy, chunk.nodes)
    held = {at: world.nodes[number].chunks[layout.chunk_id] for at, number in enumerate(chunk.nodes) if number}
    if not layout.redundancy.is_erasure:
        return held[0]
    return join_chunk(held, Striping(layout.redundancy.needed, layout.redundancy.width, sealed_length(chunk.length)))


def piece_of(blob: Blob, chunk: Chunk) -> ChunkId:
    """What nodes keep the pieces of a chunk under."""
    return stored_chunk_id(blob.blob_id, chunk.index, blob.generation)
