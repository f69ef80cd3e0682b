"""The read side of a gateway: one metadata read that says everything, then plaintext in blocks as they are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple, cast

from cluster.customer_seals import CustomerSeals
from cluster.read_run import ReadRuns
from cluster.session import ReadTracker
from storage.crypto.customer import CustomerKey
from storage.crypto.envelope import Buffer
from storage.crypto.keyring import Keyring
from storage.crypto.keys import verify_version_mac
from storage.metadata.interface import Metadata, VersionRead
from storage.model import Blob, Bucket, ByteRange, Version

MAC_KEY_VERSION = 1
"""MACs are made with the first version of a bucket key, which is never dropped: parts of one version may be sealed
under different ones"""


class ObjectReading:
    """An open read. Iterating yields plaintext blocks (bytes-like) of the range, verified, in order."""

    def __init__(
        self, read: VersionRead, start: int, end: int, satisfiable: bool, blocks: AsyncIterator[Buffer]
    ) -> None:
        self.version: Version = read.version
        self.is_current = read.is_current
        self.configuration_sequence = read.configuration_sequence
        self.extents = read.extents
        self.blobs = read.blobs
        """extents and blobs as far as the range touches them; for copies"""
        self.start = start
        self.end = end
        """the range resolved; end exclusive. The whole object when no range was asked"""
        self.satisfiable = satisfiable
        """False: the range cannot be met (416); there are no blocks then"""
        self._blocks = blocks

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises Corrupt or Unavailable when no replica can serve; the first block comes before that is known of later
        ones, so a caller sends its headers after the first block."""
        return cast(AsyncIterator[bytes], self._blocks)  # bytearray and memoryview send just as well, without a copy


class SmallReading(NamedTuple):
    """The current version of an object that is one blob, of which `open` may have some without waiting."""

    version: Version
    configuration_sequence: int
    blob: Blob
    runs: ReadRuns

    def open(self, start: int, end: int) -> Buffer | None:
        """The plaintext [start, end). A memoryview is right until the next small object is opened, or see `keep`. None:
        Reader.open knows. Corrupt, SealBroken, UnknownKeyId."""
        return self.runs.open_at_once(self.blob, start, end)

    def keep(self) -> Callable[[], None]:
        """The memoryview that was opened is held for longer, until what is returned is called."""
        return self.runs.keep()


class Reader:
    """One per worker."""

    def __init__(
        self, cluster_id: bytes, keyring: Keyring, metadata: Metadata, runs: ReadRuns, reads: ReadTracker
    ) -> None:
        self._cluster_id = cluster_id
        self._keyring = keyring
        self._customers = CustomerSeals(cluster_id, keyring)
        self._metadata = metadata
        self._at_once = metadata.at_once
        self._runs = runs
        self._reads = reads

    async def head(
        self, bucket: Bucket, object_key: bytes, version_id: str | None, part_number: int | None
    ) -> ObjectReading:
        """No body, so no key either: see `unlock`. start and end are the part's when one is asked for."""
        read = await self._metadata.read_version(
            bucket.bucket_id, object_key, version_id, part_number=part_number, with_body=False
        )
        self._verify(bucket, read)
        start, end = _resolve(read, None, part_number) or (0, 0)
        return ObjectReading(read, start, end, True, _no_blocks())

    @asynccontextmanager
    async def open(
        self,
        bucket: Bucket,
        object_key: bytes,
        version_id: str | None,
        byte_range: ByteRange | None,
        part_number: int | None,
        customer_key: CustomerKey | None = None,
    ) -> AsyncIterator[ObjectReading]:
        """The metadata read happens on entry, everything else when iterated. The sweeper waits for the exit."""
        with self._reads.track():
            read = await self._metadata.read_version(
                bucket.bucket_id, object_key, version_id, byte_range=byte_range, part_number=part_number
            )
            self._verify(bucket, read)
            if customer_key is not None or read.version.attributes.sse:
                read = read._replace(version=self.unlock(bucket, read.version, customer_key))
            span = _resolve(read, byte_range, part_number)
            if span is None:
                yield ObjectReading(read, 0, 0, False, _no_blocks())
                return
            async with aclosing(self._runs.blocks(read, *span, customer_key)) as blocks:
                yield ObjectReading(read, *span, True, blocks)

    def read_small(self, bucket: Bucket, object_key: bytes) -> SmallReading | None:
        """The current version where it is one blob and sealed for nobody in particular, without waiting for anything.

        None: `head` and `open` know. Corrupt, SealBroken, UnknownKeyId, Unavailable."""
        if self._at_once is None:
            return None
        read = self._at_once.read_small(bucket.bucket_id, object_key)
        if read is None or read.version.attributes.sse:
            return None
        self._verify(bucket, read)
        return SmallReading(read.version, read.configuration_sequence, read.blobs[0], self._runs)

    def unlock(self, bucket: Bucket, version: Version, customer_key: CustomerKey | None) -> Version:
        """What a HEAD may tell to who brought this key (None: none). CustomerKeyRefused."""
        return self._customers.unlock(bucket, version, customer_key)

    def _verify(self, bucket: Bucket, read: VersionRead) -> None:
        """The MAC, where the read brought all of the version's blobs. SealBroken; Corrupt."""
        version, position = read.version, 0
        extents = [extent for extent in read.extents if extent.length]
        for extent in extents:
            if extent.offset != position:
                return  # a range or a part: what it brings cannot prove the whole
            position += extent.length
        if version.is_marker or position != version.size:
            return
        mac_key = self._keyring.bucket_key(bucket.bucket_key_id, MAC_KEY_VERSION)
        verify_version_mac(version.mac, mac_key, self._cluster_id, version.uid, version.size, extents)


def _resolve(read: VersionRead, byte_range: ByteRange | None, part_number: int | None) -> tuple[int, int] | None:
    """[start, end) of what was asked; None when a range cannot be met."""
    size = read.version.size
    if part_number is not None and read.extents:
        return read.extents[0].offset, read.extents[-1].offset + read.extents[-1].length
    return (0, size) if byte_range is None else byte_range.resolve(size)


async def _no_blocks() -> AsyncIterator[Buffer]:
    nothing: tuple[Buffer, ...] = ()
    for block in nothing:
        yield block
