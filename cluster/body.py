"""What the door of objects takes in: a stream of plaintext that proves itself at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, Protocol

from storage.crypto.envelope import Buffer
from storage.model import Checksum

BLOCK_BYTES_MAX = 1 << 20
"""no block of a body is larger"""
TAIL_BYTES_MAX = 64 << 10
"""of an open-ended body: what is held in memory of it"""


class BodyDigests(NamedTuple):
    """Of the whole plaintext. md5: 16 bytes, for the ETag. checksum: what is stored and returned, if any."""

    md5: bytes
    checksum: Checksum | None


class Body(Protocol):
    """Plaintext of a known length. Iterated once."""

    length: int
    """bytes that the blocks will add up to; finish() refuses any other sum"""

    def __aiter__(self) -> AsyncIterator[Buffer]:
        """Blocks of 1 to BLOCK_BYTES_MAX bytes; they may come in any sizes, and are left as they are from then on."""
        ...

    async def finish(self) -> BodyDigests:
        """After the last block: verify length, last signature, Content-MD5 and checksums. Raises whatever s3gw maps to
        the S3 error; nothing may be committed then."""
        ...


class OpenEndedBody(Body, Protocol):
    """A body of which only so much is sure at first that it has `length` bytes and at most TAIL_BYTES_MAX more.

    A form's file is one: whatever fields follow it, the request's length says no more of it than this.
    """

    tail: bytes
    """what follows the blocks; there once finish() has returned, whose digests are of it too"""


class HeldBody:
    """Bytes in memory as a body, all of it, with its digests where somebody asks for them: it was verified then."""

    def __init__(self, data: Buffer, digests: BodyDigests | None = None, *, may_be_whole: bool = True) -> None:
        """may_be_whole: it may be sent to its nodes in one go."""
        self.length = len(data)
        self.data = data
        self.may_be_whole = may_be_whole
        self._digests = digests

    async def __aiter__(self) -> AsyncIterator[Buffer]:
        if self.data:
            yield self.data

    async def finish(self) -> BodyDigests:
        assert self._digests is not None, "the body that it is the end of has been finished"
        return self._digests
