"""A random walk over the door of objects beside a model of plain dicts: every answer is compared, every fault is fair.

The walk is drawn from a seed, which a failure prints. `Walk.step` does one operation on the store and on the model; an
operation may fail only where the walk has broken something, and then it must have changed nothing.
"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

from cluster.objectstore import CopySource
from storage.base.errors import (
    Corrupt,
    NoSuchKey,
    NotEnoughNodes,
    PreconditionFailed,
    SourceChanged,
    Unavailable,
)
from storage.metadata.commands import Conditions, DeleteTarget
from storage.model import Attributes, Bucket, ByteRange, ChecksumAlgorithm, PartInfo, Upload, Versioning
from tests.cluster.world import BlocksBody, World

SIZES = (0, 1, 100, 16_384, 16_385, 65_535, 65_536, 65_537, 262_144, 262_145, 700_001)
PART_BYTES_MIN = 5 << 20
KEYS = tuple(
    name.encode() for name in ("a", "a/", "a/b", "a/b/c", "a//b", "b", "b+c", "ключ", "z z", "z/1", "z/2", "z/3", "~")
)
FAULTS = (Unavailable, NotEnoughNodes, Corrupt)
"""what an operation may fail with while more is broken than the redundancy covers"""


class Stored(NamedTuple):
    """One version as the model knows it. data None: a delete marker."""

    data: bytes | None
    etag: str
    version_id: str | None


class OpenUpload(NamedTuple):
    """An unfinished multipart upload and its parts."""

    key: bytes
    upload: Upload
    parts: dict[int, tuple[PartInfo, bytes]]


class BrokenDigest(Exception):
    """What a body raises that does not verify."""


class Walk:
    """One seed, one bucket."""

    def __init__(self, world: World, bucket: Bucket, seed: int) -> None:
        self.world = world
        self.bucket = bucket
        self.random = random.Random(seed)
        self.versions: dict[bytes, list[Stored]] = {}
        """newest last; in an unversioned bucket at most one"""
        self.uploads: list[OpenUpload] = []
        self.broken = False
        """whether an operation may fail now"""
        self.done: dict[str, int] = {}
        self._versioned = bucket.versioning is Versioning.ENABLED

    # ------------------------------------------------------------------ the walk

    async def step(self) -> None:
        """One operation, drawn by weight."""
        steps = {
            self.put: 6,
            self.put_that_fails: 1,
            self.put_if: 2,
            self.get: 5,
            self.get_range: 5,
            self.head_missing: 1,
            self.copy: 3,
            self.delete: 2,
            self.delete_many: 1,
            self.list_all: 2,
            self.begin_upload: 1,
            self.put_part: 3,
            self.complete: 2,
            self.abort: 1,
        }
        chosen = self.random.choices(list(steps), list(steps.values()))[0]
        try:
            await chosen()
        except FAULTS:
            if not self.broken:
                raise
            self._count(f"{chosen.__name__} failed")
        else:
            self._count(chosen.__name__)

    def current(self, key: bytes) -> Stored | None:
        """What a GET sees; None for nothing and for a marker."""
        stack = self.versions.get(key)
        return stack[-1] if stack and stack[-1].data is not None else None

    async def put(self) -> None:
        key, data = self._key(), self._data()
        result = await self.world.objects.put(self.bucket, key, self._body(data), self._request())
        self._store(key, data, result.committed.etag, result.committed.version_id)

    async def put_that_fails(self) -> None:
        body = BlocksBody([data] if (data := self._data()) else [], failure=BrokenDigest())
        try:
            await self.world.objects.put(self.bucket, self._key(), body, self._request())
        except BrokenDigest:
            return
        raise AssertionError("a body that does not verify was stored")

    async def put_if(self) -> None:
        key, data = self._key(), self._data()
        current = self.current(key)
        if self.random.random() < 0.5:
            conditions, allowed = Conditions(if_none_match="*"), current is None
        else:
            right = current is not None and self.random.random() < 0.5
            conditions, allowed = Conditions(if_match=current.etag if right and current else "no such"), right
        request = self._request()._replace(conditions=conditions)
        try:
            result = await self.world.objects.put(self.bucket, key, self._body(data), request)
        except (PreconditionFailed, NoSuchKey):
            assert not allowed
            return
        assert allowed
        self._store(key, data, result.committed.etag, result.committed.version_id)

    async def get(self) -> None:
        key = self._key()
        current = self.current(key)
        if current is None:
            await self.head_missing()
            return
        stored = self.random.choice([it for it in self.versions[key] if it.data is not None])
        got = await self.world.get(key, bucket=self.bucket, version_id=stored.version_id)
        assert got == (stored.data if stored.version_id else current.data)

    async def get_range(self) -> None:
        key = self._key()
        current = self.current(key)
        if current is None or not current.data:
            return
        size = len(current.data)
        first = self.random.randrange(size)
        last = self.random.randrange(first, size + 10)
        assert await self.world.get(key, ByteRange(first, last), bucket=self.bucket) == current.data[first : last + 1]

    async def head_missing(self) -> None:
        key = self._key()
        try:
            reading = await self.world.objects.head(self.bucket, key)
        except NoSuchKey:
            assert self.current(key) is None
            return
        current = self.current(key)
        assert current is not None
        assert current.data is not None
        assert (reading.version.size, reading.version.etag) == (len(current.data), current.etag)

    async def copy(self) -> None:
        source_key, key = self._key(), self._key()
        source = self.current(source_key)
        if source is None or source.data is None:
            return
        reading = await self.world.objects.head(self.bucket, source_key)
        algorithm = self.random.choice([ChecksumAlgorithm.CRC64NVME, ChecksumAlgorithm.SHA1])
        try:
            result = await self.world.objects.copy(
                CopySource(self.bucket, reading.version), self.bucket, key, self._request(), algorithm
            )
        except SourceChanged:
            raise AssertionError("nobody changed the source") from None
        assert result.committed.etag == hashlib.md5(source.data).hexdigest()
        self._store(key, source.data, result.committed.etag, result.committed.version_id)

    async def delete(self) -> None:
        key = self._key()
        stack = self.versions.get(key, [])
        if self._versioned and stack and self.random.random() < 0.5:
            stored = self.random.choice(stack)
            (deleted,) = await self.world.objects.delete(self.bucket, [DeleteTarget(key, stored.version_id)])
            assert deleted.refusal == ""
            stack.remove(stored)
            return
        (deleted,) = await self.world.objects.delete(self.bucket, [DeleteTarget(key)])
        self._delete(key, deleted.version_id)

    async def delete_many(self) -> None:
        keys = self.random.sample(KEYS, 4)
        outcomes = await self.world.objects.delete(self.bucket, [DeleteTarget(key) for key in keys])
        for key, deleted in zip(keys, outcomes, strict=True):
            self._delete(key, deleted.version_id)

    async def list_all(self) -> None:
        prefix = self.random.choice([b"", b"", b"a", b"a/", b"z/", b"nothing"])
        delimiter = self.random.choice([b"", b"/"])
        after, found, limit = b"", [], self.random.randrange(1, 6)
        while True:
            page = await self.world.objects.list(
                self.bucket, prefix=prefix, after=after, delimiter=delimiter, limit=limit
            )
            assert len(page.entries) + len(page.common_prefixes) <= limit
            found += [entry.object_key for entry in page.entries] + list(page.common_prefixes)
            if page.next_after is None:
                break
            assert page.next_after > after
            after = page.next_after
        assert sorted(found) == self._expected_listing(prefix, delimiter)

    async def begin_upload(self) -> None:
        if len(self.uploads) >= 3:
            return
        key = self._key()
        upload = await self.world.objects.create_upload(
            self.bucket, key, self.world.owner.canonical_id, Attributes(), None, None
        )
        self.uploads.append(OpenUpload(key, upload, {}))

    async def put_part(self) -> None:
        if not self.uploads:
            return
        upload = self.random.choice(self.uploads)
        number = self.random.randrange(1, 4)
        size = PART_BYTES_MIN if self.random.random() < 0.1 else self.random.choice(SIZES)
        data = self.random.randbytes(size)
        part = await self.world.objects.put_part(self.bucket, upload.upload, number, self._body(data))
        upload.parts[number] = (part, data)

    async def complete(self) -> None:
        if not self.uploads:
            return
        upload = self.random.choice(self.uploads)
        chosen = sorted(upload.parts)
        while len(chosen) > 1 and any(upload.parts[number][0].size < PART_BYTES_MIN for number in chosen[:-1]):
            chosen.pop(0 if upload.parts[chosen[0]][0].size < PART_BYTES_MIN else 1)
        if not chosen:
            return
        parts = [upload.parts[number][0] for number in chosen]
        data = b"".join(upload.parts[number][1] for number in chosen)
        etag = f"{hashlib.md5(data).hexdigest()}-{len(parts)}"
        committed = await self.world.objects.complete_upload(
            self.bucket, upload.upload, parts, etag, Attributes(), Conditions()
        )
        self.uploads.remove(upload)
        self._store(upload.key, data, etag, committed.version_id)

    async def abort(self) -> None:
        if not self.uploads:
            return
        upload = self.random.choice(self.uploads)
        await self.world.objects.abort_upload(self.bucket, upload.key, upload.upload.upload_id)
        self.uploads.remove(upload)

    # ------------------------------------------------------------------ at the end

    async def compare_everything(self) -> None:
        """Every version that the model knows reads back; nothing else is listed."""
        for key, stack in self.versions.items():
            for stored in stack:
                if stored.data is None:
                    continue
                got = await self.world.get(key, bucket=self.bucket, version_id=stored.version_id)
                assert got == stored.data, key
        page = await self.world.objects.list(self.bucket, prefix=b"", after=b"", delimiter=b"", limit=1000)
        assert [entry.object_key for entry in page.entries] == self._expected_listing(b"", b"")

    async def delete_everything(self) -> None:
        """Every version, marker and upload."""
        for key, stack in self.versions.items():
            for stored in stack:
                await self.world.objects.delete(self.bucket, [DeleteTarget(key, stored.version_id)])
        for upload in self.uploads:
            await self.world.objects.abort_upload(self.bucket, upload.key, upload.upload.upload_id)
        self.versions.clear()
        self.uploads.clear()

    # ------------------------------------------------------------------ within

    def _key(self) -> bytes:
        return self.random.choice(KEYS)

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.choice(SIZES))

    def _body(self, data: bytes) -> BlocksBody:
        step = self.random.choice([1000, 65_536, 100_000, 1 << 20])
        return BlocksBody([data[at : at + step] for at in range(0, len(data), step)])

    def _request(self):  # type: ignore[no-untyped-def]
        return self.world.request()

    def _store(self, key: bytes, data: bytes, etag: str, version_id: str | None) -> None:
        stack = self.versions.setdefault(key, [])
        if not self._versioned:
            stack.clear()
        stack.append(Stored(data, etag, version_id))

    def _delete(self, key: bytes, version_id: str | None) -> None:
        if self._versioned:
            self.versions.setdefault(key, []).append(Stored(None, "", version_id))
        else:
            self.versions.pop(key, None)

    def _expected_listing(self, prefix: bytes, delimiter: bytes) -> list[bytes]:
        found: set[bytes] = set()
        for key in self.versions:
            if self.current(key) is None or not key.startswith(prefix):
                continue
            head, separator, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, b"", b"")
            found.add(prefix + head + separator if separator else key)
        return sorted(found)

    def _count(self, name: str) -> None:
        self.done[name] = self.done.get(name, 0) + 1
