"""A body that comes block by block, where all of it is wanted, at once or in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from storage.base.errors import ChunkTruncated
from storage.base.settling import abandon
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


async def hand_over_body(
    body: AsyncIterator[Buffer], length: int, batch_bytes: int, append: Callable[[list[Buffer]], asyncio.Future[None]]
) -> list[Buffer]:
    """Give `append` all but the last blocks, batch_bytes or more at a time: while one batch is being appended the next
    is gathered. → the last blocks, once all before them are appended. ChunkTruncated as gather_body; what `append`
    raises. If it fails nobody waits for an append any more, though it may go on."""
    batch: list[Buffer] = []
    held = taken = 0
    appending: asyncio.Future[None] | None = None
    try:
        async for block in body:
            taken += len(block)
            held += len(block)
            if taken > length:
                raise ChunkTruncated(f"more than the {length} bytes announced")
            batch.append(block)
            if held >= batch_bytes and taken < length:
                if appending is not None:
                    await appending
                appending = append(batch)
                batch, held = [], 0
        if taken < length:
            raise ChunkTruncated(f"{taken} of the {length} bytes announced")
        if appending is not None:
            await appending
    except BaseException:
        abandon(appending)
        raise
    return batch
