"""A body that comes block by block, where all of it is wanted."""

from __future__ import annotations

from collections.abc import AsyncIterator

from storage.base.errors import ChunkTruncated
from storage.chunks.store import Buffer


async def gather_body(body: AsyncIterator[Buffer], length: int) -> list[Buffer]:
    """All blocks. ChunkTruncated when they are not as long as announced, as soon as they are longer."""
    blocks: list[Buffer] = []
    taken = 0
    async for block in body:
        blocks.append(block)
        taken += len(block)
        if taken > length:
            raise ChunkTruncated(f"more than the {length} bytes announced")
    if taken < length:
        raise ChunkTruncated(f"{taken} of the {length} bytes announced")
    return blocks
