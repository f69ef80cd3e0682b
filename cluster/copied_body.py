"""A copy's bytes as a Body: what is read from one version and sealed again for another, hashed on its way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from cluster.body import BodyDigests
from cluster.reader import ObjectReading
from storage.base.errors import Corrupt
from storage.model import Checksum, ChecksumAlgorithm

THREAD_BYTES_MIN = 256 << 10
"""blocks of this size and above are hashed in a thread, so that a large copy does not hold up other requests"""


class Hasher(Protocol):
    """hashlib's shape."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


NewHasher = Callable[[ChecksumAlgorithm], Hasher]


class CopiedBody:
    """The blocks of a reading that was opened for [start, end) of its version."""

    def __init__(
        self, reading: ObjectReading, start: int, end: int, new_hasher: NewHasher, algorithm: ChecksumAlgorithm
    ) -> None:
        self.length = end - start
        self._reading = reading
        self._algorithm = algorithm
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hasher = new_hasher(algorithm)
        self._seen = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if not self.length:
            return
        async for block in self._reading:
            self._seen += len(block)
            if len(block) < THREAD_BYTES_MIN:
                self._update(block)
                yield block
                continue
            # Hashing and sealing go on side by side: the block is handed on while a thread reads it.
            hashing = asyncio.get_running_loop().run_in_executor(None, self._update, block)
            try:
                yield block
            finally:
                await hashing

    async def finish(self) -> BodyDigests:
        """Corrupt when the source came short: a copy is whole or there is none."""
        if self._seen != self.length:
            raise Corrupt(f"{self._seen} bytes came of a source of {self.length}")
        value = base64.b64encode(self._hasher.digest()).decode()
        return BodyDigests(self._md5.digest(), Checksum(self._algorithm, value))

    def _update(self, block: bytes) -> None:
        self._md5.update(block)
        self._hasher.update(block)
