"""What the door of objects takes in: a stream of plaintext that proves itself at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from storage.model import Checksum

BLOCK_BYTES_MAX = 1 << 20
"""no block of a body is larger"""


class BodyDigests(NamedTuple):
    """Of the whole plaintext. md5: 16 bytes, for the ETag. checksum: what is stored and returned, if any."""

    md5: bytes
    checksum: Checksum | None


class Body(Protocol):
    """Plaintext of a known length. Iterated once."""

    length: int
    """bytes that the blocks will add up to; finish() refuses any other sum"""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Blocks of 1 to BLOCK_BYTES_MAX bytes; they may come in any sizes."""
        ...

    async def finish(self) -> BodyDigests:
        """After the last block: verify length, last signature, Content-MD5 and checksums. Raises whatever s3gw maps to
        the S3 error; nothing may be committed then."""
        ...
