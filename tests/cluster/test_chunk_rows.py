"""Pages of chunk rows: all of them once, each with the layout that it belongs to."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cluster.chunk_rows import page_chunks
from storage.crypto.envelope import FRAME_BYTES
from storage.metadata.interface import CHUNK_PAGE_ROWS
from storage.model import Blob
from tests.cluster.layouts import lay_out
from tests.cluster.world import SETTINGS, World, open_world

CHUNKS = 2 * CHUNK_PAGE_ROWS + 3


async def blob_of(world: World) -> Blob:
    """As a read of the whole object brings it."""
    read = await world.metadata.read_version(world.bucket.bucket_id, b"key")
    return read.blobs[0]


@pytest.mark.parametrize("brought", [0, 1, CHUNK_PAGE_ROWS])
async def test_every_row_once(tmp_path: Path, brought: int) -> None:
    """Those that came with the read, then the rest."""
    settings = replace(SETTINGS, chunk_bytes=FRAME_BYTES)
    async with open_world(tmp_path, node_count=4, settings=settings) as world:
        await world.put(b"key", os.urandom(CHUNKS * FRAME_BYTES))
        blob = await blob_of(world)
        blob = msgspec.structs.replace(blob, chunks=blob.chunks[:brought])
        pages = [rows async for _, rows in page_chunks(world.metadata, blob)]
        assert [row.index for rows in pages for row in rows] == list(range(CHUNKS))
        assert all(len(rows) <= CHUNK_PAGE_ROWS for rows in pages)


async def test_a_page_has_the_layout_of_its_rows(tmp_path: Path) -> None:
    """Of before for what was read before, of now for what is read now; keys never change."""
    settings = replace(SETTINGS, chunk_bytes=FRAME_BYTES)
    async with open_world(tmp_path, node_count=4, settings=settings) as world:
        await world.put(b"key", os.urandom(CHUNKS * FRAME_BYTES))
        blob = await blob_of(world)
        keys = [row.wrapped_key for row in blob.chunks]
        await lay_out(world, b"key", "ec:2+1", keep_old=True)
        pages = [page async for page in page_chunks(world.metadata, blob)]
        assert [(it.redundancy, it.generation) for it, _ in pages] == [("replica:2", 0), ("ec:2+1", 1), ("ec:2+1", 1)]
        assert {len(row.nodes) for row in pages[0][1]} == {2}
        assert {len(row.nodes) for row in pages[1][1]} == {3}
        assert {len(row.digest) for row in pages[1][1]} == {24}
        fresh = [page async for page in page_chunks(world.metadata, await blob_of(world))]
        assert [row.wrapped_key for row in fresh[0][1]] == keys
        assert all(it.redundancy == "ec:2+1" for it, _ in fresh)
