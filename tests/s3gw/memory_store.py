"""The doors of objects and of the directory in memory, with the semantics that their contracts state.

For tests of s3gw alone: no chunks, no seals, no processes, but honest versions, conditions, paging and uploads.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from cluster.body import Body
from cluster.directory import Credential
from cluster.objectstore import CopySource, PutRequest, PutResult, Seal
from s3gw.protocol.checksums import DEFAULT_ALGORITHM, encode_digest, new_hasher
from storage.base import errors
from storage.base.clock import Clock
from storage.crypto.customer import CustomerKey
from storage.metadata.commands import Conditions, Deleted, DeleteTarget, VersionCommitted
from storage.metadata.interface import CompletedUpload, HeadEntry, HeadPage, PartPage, UploadPage
from storage.model import (
    AccessKey,
    Attributes,
    Bucket,
    ByteRange,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    PartInfo,
    Upload,
    User,
    Version,
    Versioning,
)

BLOCK_BYTES = 64 * 1024
SEALS_NOTHING = "what is asked to be sealed is tested over the real doors"


class MemoryDirectory:
    """Users and buckets."""

    def __init__(self, clock: Clock) -> None:
        self.sequence = 0
        self._clock = clock
        self._users: dict[str, User] = {}
        self._secrets: dict[str, tuple[str, str]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._ids = itertools.count(1)
        self.objects: MemoryObjectStore | None = None

    async def refresh(self) -> int:
        """Nothing is cached."""
        return self.sequence

    async def credential(self, access_key_id: str) -> Credential | None:
        """By access key id."""
        found = self._secrets.get(access_key_id)
        return None if found is None else Credential(access_key_id, found[0], self._users[found[1]])

    async def user(self, canonical_id: str) -> User | None:
        """By canonical id."""
        return self._users.get(canonical_id)

    async def bucket(self, name: str) -> Bucket:
        """By name."""
        try:
            return self._buckets[name]
        except KeyError:
            raise errors.NoSuchBucket from None

    async def buckets(self, owner_id: str, prefix: str = "", after: str = "", limit: int = 10_000) -> list[Bucket]:
        """By name, of one owner."""
        return [
            bucket
            for name, bucket in sorted(self._buckets.items())
            if bucket.owner_id == owner_id and name.startswith(prefix) and name > after
        ][:limit]

    async def create_bucket(
        self,
        name: str,
        owner: User,
        region: str,
        settings: dict[str, bytes],
        versioning: Versioning = Versioning.UNVERSIONED,
    ) -> Bucket:
        """Make it, unless the name is taken."""
        if name in self._buckets:
            raise errors.BucketAlreadyExists(owner_id=self._buckets[name].owner_id)
        bucket = Bucket(
            next(self._ids), name, owner.canonical_id, region, self._clock.now_ms(), "bk", versioning, settings
        )
        self._buckets[name] = bucket
        self.sequence += 1
        return bucket

    async def delete_bucket(self, bucket: Bucket) -> None:
        """Only an empty one; open uploads go with it."""
        if self.objects is not None:
            self.objects.forget_bucket(bucket)
        del self._buckets[bucket.name]
        self.sequence += 1

    async def put_setting(self, bucket: Bucket, name: str, document: bytes | None) -> None:
        """Set or remove one document."""
        settings = {other: text for other, text in bucket.settings.items() if other != name}
        if document is not None:
            settings[name] = document
        self._replace(bucket, settings=settings)

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> None:
        """Change the state."""
        self._replace(bucket, versioning=versioning)

    async def create_user(self, user: User, access_key_id: str, secret_access_key: str) -> None:
        """With one access key."""
        if user.canonical_id in self._users or access_key_id in self._secrets:
            raise errors.UserAlreadyExists
        self._users[user.canonical_id] = user
        self._secrets[access_key_id] = (secret_access_key, user.canonical_id)
        self.sequence += 1

    async def delete_user(self, name: str) -> None:
        """With its keys."""
        found = next((user for user in self._users.values() if user.name == name), None)
        if found is None:
            raise errors.NoSuchUser
        del self._users[found.canonical_id]
        self._secrets = {key: pair for key, pair in self._secrets.items() if pair[1] != found.canonical_id}

    async def users(self) -> list[tuple[User, list[AccessKey]]]:
        """All of them."""
        return [(user, []) for user in self._users.values()]

    def _replace(self, bucket: Bucket, **changes: object) -> None:
        self._buckets[bucket.name] = msgspec.structs.replace(self._buckets[bucket.name], **changes)
        self.sequence += 1


class MemoryReading:
    """An open read over bytes."""

    configuration_sequence = 0

    def __init__(self, version: Version, is_current: bool, body: bytes, span: tuple[int, int] | None) -> None:
        self.version = version
        self.is_current = is_current
        self.satisfiable = span is not None
        self.start, self.end = span or (0, 0)
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(self.start, self.end, BLOCK_BYTES):
            yield self._body[start : min(start + BLOCK_BYTES, self.end)]


class _Stored(msgspec.Struct):
    version: Version
    body: bytes
    part_sizes: list[tuple[int, int]] = []


class _OpenUpload(msgspec.Struct):
    upload: Upload
    parts: dict[int, tuple[PartInfo, bytes]] = {}


class MemoryObjectStore:
    """Versions by bucket and key, the newest last."""

    def __init__(self, directory: MemoryDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._versions: dict[int, dict[bytes, list[_Stored]]] = {}
        self._uploads: dict[tuple[int, bytes, str], _OpenUpload] = {}
        self._completed: dict[tuple[int, bytes, str], CompletedUpload] = {}
        self._sequence = itertools.count(1)
        directory.objects = self

    # ------------------------------------------------------------------ objects

    async def put(self, bucket: Bucket, object_key: bytes, body: Body, request: PutRequest) -> PutResult:
        """Take the whole body, then commit."""
        data = b"".join([block async for block in body])
        assert len(data) == body.length
        digests = await body.finish()
        attributes = msgspec.structs.replace(request.attributes, checksum=digests.checksum)
        return self._commit(bucket, object_key, data, digests.md5.hex(), request._replace(attributes=attributes))

    async def head(
        self, bucket: Bucket, object_key: bytes, version_id: str | None = None, part_number: int | None = None
    ) -> MemoryReading:
        """A read without a body."""
        return self._read(bucket, object_key, version_id, None, part_number)

    @asynccontextmanager
    async def open(
        self,
        bucket: Bucket,
        object_key: bytes,
        version_id: str | None = None,
        byte_range: ByteRange | None = None,
        part_number: int | None = None,
        customer_key: CustomerKey | None = None,
    ) -> AsyncIterator[MemoryReading]:
        """A read with its body. Nothing is sealed here, so no key fits."""
        if customer_key is not None:
            raise errors.CustomerKeyNotApplicable
        yield self._read(bucket, object_key, version_id, byte_range, part_number)

    async def copy(
        self, source: CopySource, bucket: Bucket, object_key: bytes, request: PutRequest, algorithm: ChecksumAlgorithm
    ) -> PutResult:
        """The same bytes under another key."""
        data = self._find(source.bucket, source.version.object_key, source.version.version_id).body
        attributes = msgspec.structs.replace(request.attributes, checksum=checksum_of(data, algorithm))
        return self._commit(bucket, object_key, data, _md5(data), request._replace(attributes=attributes))

    async def delete(
        self, bucket: Bucket, targets: Sequence[DeleteTarget], *, bypass_governance: bool = False
    ) -> list[Deleted]:
        """One outcome per target."""
        outcomes = []
        for target in targets:
            try:
                outcomes.append(self._delete(await self._directory.bucket(bucket.name), target))
            except errors.Refused as refused:
                outcomes.append(Deleted(refusal=type(refused).__name__))
        return outcomes

    async def list(self, bucket: Bucket, *, prefix: bytes, after: bytes, delimiter: bytes, limit: int) -> HeadPage:
        """Current versions in byte order, rolled up."""
        entries: list[HeadEntry] = []
        prefixes: list[bytes] = []
        last = b""
        kept = self._versions.get(bucket.bucket_id, {})
        live = sorted(name for name, versions in kept.items() if versions and not versions[-1].version.is_marker)
        for name, rolled in _roll_up(live, prefix, after, delimiter):
            if len(entries) + len(prefixes) == limit:
                return HeadPage(tuple(entries), tuple(prefixes), last)
            last = name
            if rolled:
                prefixes.append(name)
            else:
                entries.append(_entry(kept[name][-1].version))
        return HeadPage(tuple(entries), tuple(prefixes), None)

    def forget_bucket(self, bucket: Bucket) -> None:
        """Called before a bucket goes. BucketNotEmpty."""
        if any(self._versions.get(bucket.bucket_id, {}).values()):
            raise errors.BucketNotEmpty
        self._uploads = {name: upload for name, upload in self._uploads.items() if name[0] != bucket.bucket_id}

    def _commit(
        self,
        bucket: Bucket,
        object_key: bytes,
        data: bytes,
        etag: str,
        request: PutRequest,
        part_sizes: list[tuple[int, int]] | None = None,
    ) -> PutResult:
        kept = self._versions.setdefault(bucket.bucket_id, {}).setdefault(object_key, [])
        _check(request.conditions, kept)
        is_null = bucket.versioning is not Versioning.ENABLED
        sequence = next(self._sequence)
        version = Version(
            sequence,
            object_key,
            sequence,
            secrets.token_bytes(8),
            is_null,
            False,
            len(data),
            etag,
            self._clock.now_ms(),
            request.owner_id,
            request.attributes,
            part_count=len(part_sizes or []),
        )
        if is_null:
            kept[:] = [stored for stored in kept if not stored.version.is_null]
        kept.append(_Stored(version, data, part_sizes or []))
        shown = None if bucket.versioning is Versioning.UNVERSIONED else version.version_id
        committed = VersionCommitted(shown, version.last_modified_ms, etag)
        return PutResult(committed, request.attributes.checksum, len(data))

    def _delete(self, bucket: Bucket, target: DeleteTarget) -> Deleted:
        kept = self._versions.setdefault(bucket.bucket_id, {}).setdefault(target.object_key, [])
        _check(target.conditions, kept)
        if target.version_id is not None:
            found = [stored for stored in kept if stored.version.version_id == target.version_id]
            kept[:] = [stored for stored in kept if stored not in found]
            return Deleted(target.version_id, any(stored.version.is_marker for stored in found))
        if bucket.versioning is Versioning.UNVERSIONED:
            kept.clear()
            return Deleted()
        is_null = bucket.versioning is Versioning.SUSPENDED
        if is_null:
            kept[:] = [stored for stored in kept if not stored.version.is_null]
        sequence = next(self._sequence)
        uid = secrets.token_bytes(8)
        marker = Version(
            sequence, target.object_key, sequence, uid, is_null, True, 0, "", self._clock.now_ms(), "", Attributes()
        )
        kept.append(_Stored(marker, b""))
        return Deleted(marker.version_id, True)

    def _find(self, bucket: Bucket, object_key: bytes, version_id: str | None) -> _Stored:
        kept = self._versions.get(bucket.bucket_id, {}).get(object_key, [])
        if version_id is None:
            if not kept:
                raise errors.NoSuchKey
            if kept[-1].version.is_marker:
                raise errors.NoSuchKey(delete_marker_version_id=kept[-1].version.version_id)
            return kept[-1]
        for stored in kept:
            if stored.version.version_id == version_id:
                return stored
        raise errors.NoSuchVersion

    def _read(
        self,
        bucket: Bucket,
        object_key: bytes,
        version_id: str | None,
        byte_range: ByteRange | None,
        part_number: int | None,
    ) -> MemoryReading:
        stored = self._find(bucket, object_key, version_id)
        span: tuple[int, int] | None = (0, stored.version.size)
        if byte_range is not None:
            span = byte_range.resolve(stored.version.size)
        if part_number is not None:
            span = _find_part(stored, part_number)
        kept = self._versions[bucket.bucket_id][object_key]
        return MemoryReading(stored.version, stored is kept[-1], stored.body, span)

    # ------------------------------------------------------------------ multipart uploads

    async def create_upload(
        self,
        bucket: Bucket,
        object_key: bytes,
        owner_id: str,
        attributes: Attributes,
        algorithm: ChecksumAlgorithm | None,
        checksum_type: ChecksumType | None,
        seal: Seal | None = None,
    ) -> Upload:
        """A new upload."""
        assert seal is None, SEALS_NOTHING
        upload = Upload(
            f"{self._clock.now_ms():012x}{secrets.token_hex(16)}",
            bucket.bucket_id,
            object_key,
            owner_id,
            self._clock.now_ms(),
            attributes,
            algorithm,
            checksum_type,
        )
        self._uploads[bucket.bucket_id, object_key, upload.upload_id] = _OpenUpload(upload)
        return upload

    async def read_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> Upload:
        """NoSuchUpload."""
        return self._open_upload(bucket, object_key, upload_id).upload

    async def put_part(
        self, bucket: Bucket, upload: Upload, part_number: int, body: Body, seal: Seal | None = None
    ) -> PartInfo:
        """Take the whole part."""
        assert seal is None, SEALS_NOTHING
        data = b"".join([block async for block in body])
        digests = await body.finish()
        return self._put_part(bucket, upload, part_number, data, digests.checksum)

    async def copy_part(
        self,
        source: CopySource,
        byte_range: tuple[int, int] | None,
        bucket: Bucket,
        upload: Upload,
        part_number: int,
        seal: Seal | None = None,
    ) -> PartInfo:
        """A part from an object."""
        assert seal is None, SEALS_NOTHING
        data = self._find(source.bucket, source.version.object_key, source.version.version_id).body
        if byte_range is not None:
            data = data[byte_range[0] : byte_range[1]]
        checksum = checksum_of(data, upload.checksum_algorithm or DEFAULT_ALGORITHM)
        return self._put_part(bucket, upload, part_number, data, checksum)

    async def complete_upload(
        self,
        bucket: Bucket,
        upload: Upload,
        parts: Sequence[PartInfo],
        etag: str,
        attributes: Attributes,
        conditions: Conditions,
        customer_key: CustomerKey | None = None,
    ) -> VersionCommitted:
        """Make the parts a version."""
        assert customer_key is None, SEALS_NOTHING
        opened = self._open_upload(bucket, upload.object_key, upload.upload_id)
        for part in parts:
            if part.part_number not in opened.parts or opened.parts[part.part_number][0] != part:
                raise errors.InvalidPart(part_number=str(part.part_number))
        data = b"".join(opened.parts[part.part_number][1] for part in parts)
        sizes = [(part.part_number, part.size) for part in parts]
        request = PutRequest(upload.owner_id, attributes, conditions)
        committed = self._commit(bucket, upload.object_key, data, etag, request, sizes).committed
        name = (bucket.bucket_id, upload.object_key, upload.upload_id)
        del self._uploads[name]
        self._completed[name] = CompletedUpload(
            bucket.bucket_id, upload.object_key, committed.version_id, etag, committed.last_modified_ms
        )
        return committed

    async def find_completed_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> CompletedUpload | None:
        """For a retry."""
        return self._completed.get((bucket.bucket_id, object_key, upload_id))

    async def abort_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> None:
        """NoSuchUpload."""
        self._open_upload(bucket, object_key, upload_id)
        del self._uploads[bucket.bucket_id, object_key, upload_id]

    async def list_parts(
        self,
        bucket: Bucket,
        object_key: bytes,
        upload_id: str,
        after: int,
        limit: int,
        customer_key: CustomerKey | None = None,
    ) -> PartPage:
        """By number."""
        assert customer_key is None, SEALS_NOTHING
        opened = self._open_upload(bucket, object_key, upload_id)
        found = [info for number, (info, _) in sorted(opened.parts.items()) if number > after]
        more = len(found) > limit
        return PartPage(opened.upload, tuple(found[:limit]), found[limit - 1].part_number if more else None)

    async def list_uploads(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
    ) -> UploadPage:
        """By (key, upload id), rolled up."""
        mine = sorted(
            (opened.upload for name, opened in self._uploads.items() if name[0] == bucket.bucket_id),
            key=lambda upload: (upload.object_key, upload.upload_id),
        )
        uploads: list[Upload] = []
        prefixes: list[bytes] = []
        last = (b"", "")
        for upload in mine:
            where = (upload.object_key, upload.upload_id)
            if not upload.object_key.startswith(prefix):
                continue
            if (after[1] and where <= after) or (not after[1] and upload.object_key <= after[0] and after[0]):
                continue
            rolled = _rolled_up(upload.object_key, prefix, delimiter)
            if rolled is not None and (rolled in prefixes or rolled <= after[0]):
                continue
            if len(uploads) + len(prefixes) == limit:
                return UploadPage(tuple(uploads), tuple(prefixes), last)
            if rolled is None:
                uploads.append(upload)
                last = where
            else:
                prefixes.append(rolled)
                last = (rolled, "")
        return UploadPage(tuple(uploads), tuple(prefixes), None)

    def _open_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> _OpenUpload:
        try:
            return self._uploads[bucket.bucket_id, object_key, upload_id]
        except KeyError:
            raise errors.NoSuchUpload from None

    def _put_part(
        self, bucket: Bucket, upload: Upload, part_number: int, data: bytes, checksum: Checksum | None
    ) -> PartInfo:
        opened = self._open_upload(bucket, upload.object_key, upload.upload_id)
        blob_id = next(self._sequence).to_bytes(16, "big")
        part = PartInfo(part_number, len(data), _md5(data), self._clock.now_ms(), blob_id, checksum)
        opened.parts[part_number] = (part, data)
        return part


def checksum_of(data: bytes, algorithm: ChecksumAlgorithm) -> Checksum:
    """The full-object checksum of some bytes."""
    hasher = new_hasher(algorithm)
    hasher.update(data)
    return Checksum(algorithm, encode_digest(hasher.digest()))


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def _entry(version: Version) -> HeadEntry:
    checksum = version.attributes.checksum
    return HeadEntry(
        version.object_key,
        version.size,
        version.etag,
        version.last_modified_ms,
        version.attributes.storage_class,
        version.owner_id,
        checksum.algorithm if checksum else "",
        checksum.type if checksum else "",
    )


def _rolled_up(object_key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    if not delimiter:
        return None
    end = object_key.find(delimiter, len(prefix))
    return None if end < 0 else object_key[: end + len(delimiter)]


def _roll_up(names: list[bytes], prefix: bytes, after: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bool]]:
    """(key or common prefix, whether it is a prefix), each prefix once and none at or before `after`."""
    seen = b""
    for name in names:
        if name <= after or not name.startswith(prefix):
            continue
        rolled = _rolled_up(name, prefix, delimiter)
        if rolled is None:
            yield name, False
        elif rolled > after and rolled != seen:
            seen = rolled
            yield rolled, True


def _check(conditions: Conditions, kept: list[_Stored]) -> None:
    current = kept[-1].version if kept and not kept[-1].version.is_marker else None
    if conditions.if_match is not None:
        if current is None:
            raise errors.NoSuchKey
        if conditions.if_match not in ("*", current.etag):
            raise errors.PreconditionFailed(condition="If-Match")
    if conditions.if_none_match is not None and current is not None and conditions.if_none_match in ("*", current.etag):
        raise errors.PreconditionFailed(condition="If-None-Match")


def _find_part(stored: _Stored, part_number: int) -> tuple[int, int]:
    if not stored.part_sizes and part_number == 1:
        return 0, stored.version.size
    start = 0
    for number, size in stored.part_sizes:
        if number == part_number:
            return start, start + size
        start += size
    raise errors.InvalidPart
