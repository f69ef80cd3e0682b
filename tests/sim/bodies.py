"""What clients send: contents that differ from all others, in blocks of any size, at once or slowly."""

from __future__ import annotations

import asyncio
import random

from storage.base.errors import FrostbyteError
from tests.cluster.world import BlocksBody
from tests.sim.profiles import Profile

SLOW_BLOCKS_MAX = 8
"""a body of more blocks is never slow"""


class BadBody(FrostbyteError):
    """What a body raises that does not verify."""


class Bodies:
    """Of one client."""

    def __init__(self, generator: random.Random, profile: Profile) -> None:
        self._random = generator
        self._profile = profile

    def content(self) -> bytes:
        """Of one of the run's sizes, or a little more."""
        size = self._random.choice(self._profile.sizes)
        return self._random.randbytes(size + self._random.randrange(64)) if size else b""

    def body(self, content: bytes, failure: Exception | None) -> BlocksBody:
        """failure: what its end raises instead of giving digests."""
        block_bytes = self._random.choice((1_000, 30_000, 65_536, 200_000))
        slow_s = self._random.choice((0.01, 1.0, 15.0)) if self._random.random() < self._profile.slowness else 0.0

        async def wait(_: int) -> None:
            await asyncio.sleep(self._random.uniform(0, slow_s))

        blocks = [content[at : at + block_bytes] for at in range(0, len(content), block_bytes)]
        is_slow = slow_s and len(blocks) < SLOW_BLOCKS_MAX
        return BlocksBody(blocks, failure=failure, before_block=wait if is_slow else None)
