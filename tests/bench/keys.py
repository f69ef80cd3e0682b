"""Buckets of many keys, written through the commands of the metadata and not by requests: a million in minutes.

The objects have no bytes. What lists, deletes and commits of other keys see of them is the same: a head, a version, and
their places in every index.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from storage.metadata.commands import (
    CommitVersion,
    CreateBucket,
    DeleteTarget,
    DeleteVersions,
    NewVersion,
    OpenSession,
    RenewSession,
)
from storage.metadata.interface import Metadata
from storage.model import Attributes, Versioning

BATCH = 1_000
"""commands in flight, and targets of one deletion"""
TOP_PREFIXES = 10
KEYS_OF_A_PREFIX = 10
EMPTY_ETAG = "d41d8cd98f00b204e9800998ecf8427e"


class Shape(NamedTuple):
    """What a bucket holds."""

    keys: int
    """that are current"""
    markers: int = 0
    """keys under a delete marker, among them in the order of keys"""
    noncurrent: int = 0
    """older versions, evenly of the current keys"""


def key_name(number: int, count: int) -> bytes:
    """`top/directory/number`: ten tops, ten keys in each directory, in no order of age."""
    directories = max(1, count // (TOP_PREFIXES * KEYS_OF_A_PREFIX))
    place, top = divmod(number, TOP_PREFIXES)
    return b"%d/%07d/%07d" % (top, place % directories, number)


class KeyWriter:
    """One write session that makes buckets of one owner."""

    def __init__(self, metadata: Metadata, owner_id: str, bucket_key_id: str) -> None:
        self._metadata = metadata
        self._owner_id = owner_id
        self._bucket_key_id = bucket_key_id
        self._session_id = os.urandom(8)

    async def open(self) -> None:
        """Before the first bucket."""
        await self._metadata.apply(OpenSession(self._session_id, "keys of a benchmark"))

    async def make(self, name: str, shape: Shape) -> None:
        """A bucket of this shape; versioned where the shape needs it."""
        versioning = Versioning.ENABLED if shape.markers or shape.noncurrent else Versioning.UNVERSIONED
        bucket = await self._metadata.apply(
            CreateBucket(name, self._owner_id, "us-east-1", self._bucket_key_id, versioning)
        )
        layers = 1 + shape.noncurrent // max(1, shape.keys)
        for _ in range(layers):
            names = (key_name(number, shape.keys) for number in range(shape.keys))
            for batch in _batches(names):
                await self._renew()
                await asyncio.gather(*(self._put(bucket.bucket_id, object_key) for object_key in batch))
        hidden = (key_name(number, shape.markers) + b"-gone" for number in range(shape.markers))
        for batch in _batches(hidden):
            targets = tuple(DeleteTarget(object_key) for object_key in batch)
            await self._renew()
            await self._metadata.apply(DeleteVersions(bucket.bucket_id, targets))

    async def _renew(self) -> None:
        """A million take longer than a lease."""
        await self._metadata.apply(RenewSession(self._session_id, 0))

    async def _put(self, bucket_id: int, object_key: bytes) -> None:
        version = NewVersion(os.urandom(8), 0, EMPTY_ETAG, self._owner_id, Attributes(), os.urandom(32))
        await self._metadata.apply(CommitVersion(self._session_id, bucket_id, object_key, version, ()))


def _batches(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for name in names:
        batch.append(name)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
