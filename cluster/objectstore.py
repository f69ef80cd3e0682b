"""ObjectStore: the door that s3gw enters for objects. (signatures; the implementation follows)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from cluster.body import Body
from storage.metadata.commands import Conditions, Deleted, DeleteTarget, VersionCommitted
from storage.metadata.interface import CompletedUpload, HeadPage, PartPage, UploadPage
from storage.model import (
    Attributes,
    Bucket,
    ByteRange,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    PartInfo,
    Upload,
    Version,
)


class PutRequest(NamedTuple):
    """What a PUT says beside its body. The checksum of `attributes` is filled in from the body's digests."""

    owner_id: str
    attributes: Attributes
    conditions: Conditions = Conditions()


class PutResult(NamedTuple):
    """The committed version and what was stored of its checksum."""

    committed: VersionCommitted
    checksum: Checksum | None


class CopySource(NamedTuple):
    """Where a copy reads from; `version` is what the caller authorised and checked conditions against."""

    bucket: Bucket
    version: Version


class ObjectReading(Protocol):
    """An open read. Iterating yields plaintext blocks of the range, verified, in order."""

    version: Version
    is_current: bool
    configuration_sequence: int
    start: int
    end: int
    """the range resolved; end exclusive. The whole object when no range was asked"""
    satisfiable: bool
    """False: the range cannot be met (416); there are no blocks then"""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Raises Corrupt or Unavailable when no replica can serve; the first block comes before that is known of later
        ones, so a caller sends its headers after the first block."""
        ...


class ObjectStore(Protocol):
    """put, get, copy, delete, list and multipart. Raises the tree of storage.base.errors only (and what a Body raises)."""

    async def put(self, bucket: Bucket, object_key: bytes, body: Body, request: PutRequest) -> PutResult:
        """Chunk, seal, place, fan out, commit. Nothing of it is visible or stays when anything raises."""
        ...

    async def head(
        self, bucket: Bucket, object_key: bytes, version_id: str | None = None, part_number: int | None = None
    ) -> ObjectReading:
        """One metadata read and no body (start/end are the part's span when a part is asked for)."""
        ...

    def open(
        self,
        bucket: Bucket,
        object_key: bytes,
        version_id: str | None = None,
        byte_range: ByteRange | None = None,
        part_number: int | None = None,
    ) -> AbstractAsyncContextManager[ObjectReading]:
        """One metadata read on entry (NoSuchKey, NoSuchVersion, InvalidPart); datanodes are asked when iterated."""
        ...

    async def copy(
        self, source: CopySource, bucket: Bucket, object_key: bytes, request: PutRequest, algorithm: ChecksumAlgorithm
    ) -> PutResult:
        """Share the source's blobs where bucket key, mode and redundancy allow and the source is a single-PUT version
        that has this checksum; else stream and seal again. ETag: MD5 of the plaintext, also for a multipart source."""
        ...

    async def delete(self, bucket: Bucket, targets: Sequence[DeleteTarget]) -> list[Deleted]:
        """One outcome per target, in order."""
        ...

    async def list(self, bucket: Bucket, *, prefix: bytes, after: bytes, delimiter: bytes, limit: int) -> HeadPage: ...

    async def create_upload(
        self,
        bucket: Bucket,
        object_key: bytes,
        owner_id: str,
        attributes: Attributes,
        algorithm: ChecksumAlgorithm | None,
        checksum_type: ChecksumType | None,
    ) -> Upload: ...

    async def read_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> Upload: ...

    async def put_part(self, bucket: Bucket, upload: Upload, part_number: int, body: Body) -> PartInfo: ...

    async def copy_part(
        self, source: CopySource, byte_range: tuple[int, int] | None, bucket: Bucket, upload: Upload, part_number: int
    ) -> PartInfo:
        """byte_range: [start, end) of the source, validated by the caller. Streams and seals again."""
        ...

    async def complete_upload(
        self,
        bucket: Bucket,
        upload: Upload,
        parts: Sequence[PartInfo],
        etag: str,
        attributes: Attributes,
        conditions: Conditions,
    ) -> VersionCommitted:
        """parts, etag and attributes (with the combined checksum) as the caller worked them out from list_parts."""
        ...

    async def find_completed_upload(
        self, bucket: Bucket, object_key: bytes, upload_id: str
    ) -> CompletedUpload | None: ...

    async def abort_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> None: ...

    async def list_parts(
        self, bucket: Bucket, object_key: bytes, upload_id: str, after: int, limit: int
    ) -> PartPage: ...

    async def list_uploads(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
    ) -> UploadPage: ...
