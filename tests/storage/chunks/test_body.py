"""Gathering a body that has to be as long as was announced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import ChunkTruncated
from storage.chunks.body import gather_body


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
