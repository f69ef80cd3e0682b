"""Gathering a body that has to be as long as was announced, or handing it over in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import ChunkTruncated
from storage.chunks.body import gather_body, hand_over_body
from storage.chunks.store import Buffer


class Blocks:
    """A body of these blocks; `taken` of them were asked for."""

    def __init__(self, blocks: Sequence[bytes]) -> None:
        self._blocks = blocks
        self.taken = 0

    async def stream(self) -> AsyncIterator[bytes]:
        """All of them."""
        for block in self._blocks:
            self.taken += 1
            yield block


@given(st.lists(st.binary(max_size=5), max_size=8), st.integers(0, 40))
async def test_all_of_it_or_an_error(blocks: list[bytes], length: int) -> None:
    """The blocks as they came; nothing else than the announced length passes."""
    if sum(map(len, blocks)) == length:
        assert await gather_body(Blocks(blocks).stream(), length) == blocks
    else:
        with pytest.raises(ChunkTruncated):
            await gather_body(Blocks(blocks).stream(), length)


async def test_what_is_too_long_is_not_read_to_its_end() -> None:
    """One block too many is enough."""
    body = Blocks([b"12345"] * 100)
    with pytest.raises(ChunkTruncated):
        await gather_body(body.stream(), 10)
    assert body.taken == 3


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=12), st.integers(0, 60), st.integers(1, 12))
async def test_batches_are_the_body(blocks: list[bytes], length: int, batch_bytes: int) -> None:
    """One after the other, each large enough, the last one kept; or an error as of a body that is gathered."""
    running = 0
    appended: list[Buffer] = []

    async def store(batch: list[Buffer]) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        appended.extend(batch)
        running -= 1

    def append(batch: list[Buffer]) -> asyncio.Future[None]:
        assert sum(map(len, batch)) >= batch_bytes
        return asyncio.ensure_future(store(batch))

    handing = hand_over_body(Blocks(blocks).stream(), length, batch_bytes, append)
    if sum(map(len, blocks)) == length:
        last = await handing
        assert running == 0 and [*appended, *last] == blocks
        assert last or not blocks
    else:
        with pytest.raises(ChunkTruncated):
            await handing


async def test_the_error_of_an_append_ends_it() -> None:
    """At the next one, or at the end."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.set_exception(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        await hand_over_body(Blocks([b"12345"] * 2).stream(), 10, 5, lambda _: failed)
