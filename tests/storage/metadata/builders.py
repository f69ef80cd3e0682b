"""A gateway worker as the metadata sees it: a session that makes blobs, and short ways to say the usual commands."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

from storage.base.ids import make_blob_id
from storage.metadata.commands import (
    AbortUpload,
    CommitVersion,
    CompleteUpload,
    Conditions,
    CreateBucket,
    CreateUpload,
    Deleted,
    DeleteTarget,
    DeleteVersions,
    NewVersion,
    OpenSession,
    PutPart,
    SetVersioning,
    VersionCommitted,
)
from storage.metadata.interface import Metadata
from storage.model import Attributes, Blob, Bucket, Chunk, Extent, PartInfo, Upload, Versioning

OWNER = "0f" * 32
PART_BYTES = 5 << 20
NO_CONDITIONS = Conditions()


class Worker:
    """One session on one bucket."""

    def __init__(self, metadata: Metadata, session_id: bytes, bucket: Bucket) -> None:
        self.metadata = metadata
        self.session_id = session_id
        self.bucket = bucket
        self._counter = itertools.count(1)

    @classmethod
    async def start(cls, metadata: Metadata, bucket: Bucket | None = None) -> Worker:
        """Opens a session, and a bucket unless one is given."""
        session_id = os.urandom(8)
        await metadata.apply(OpenSession(session_id, "test"))
        bucket = bucket or await metadata.apply(CreateBucket("bucket", OWNER, "us-east-1", "bk-1"))
        return cls(metadata, session_id, bucket)

    async def in_bucket(self, name: str, versioning: Versioning = Versioning.UNVERSIONED) -> Worker:
        """The same session on another, new bucket."""
        bucket = await self.metadata.apply(CreateBucket(name, OWNER, "us-east-1", "bk-1", versioning))
        other = Worker(self.metadata, self.session_id, bucket)
        other._counter = self._counter
        return other

    async def set_versioning(self, versioning: Versioning) -> None:
        await self.apply(SetVersioning(self.bucket.bucket_id, versioning))

    def blob_id(self) -> bytes:
        return make_blob_id(self.session_id, next(self._counter))

    def inline(self, size: int) -> Blob:
        """A blob whose sealed bytes live in the metadata."""
        chunk = Chunk(0, 0, size, os.urandom(48), os.urandom(8))
        return Blob(self.blob_id(), size, "bk-1", 1, "inline", (chunk,), os.urandom(size + 80))

    def chunked(self, size: int, chunk_bytes: int = 8 << 20, nodes: tuple[int, ...] = (1, 2)) -> Blob:
        """A blob with chunk rows."""
        chunks = tuple(
            Chunk(index, offset, min(chunk_bytes, size - offset), os.urandom(48), os.urandom(8), nodes)
            for index, offset in enumerate(range(0, size, chunk_bytes))
        )
        return Blob(self.blob_id(), size, "bk-1", 1, f"replica:{len(nodes)}", chunks)

    def version(self, size: int, etag: str, attributes: Attributes | None = None) -> NewVersion:
        return NewVersion(os.urandom(8), size, etag, OWNER, attributes or Attributes(), os.urandom(32))

    async def put(
        self,
        object_key: bytes,
        etag: str = "e",
        size: int = 10,
        *,
        blob: Blob | None = None,
        conditions: Conditions = NO_CONDITIONS,
        attributes: Attributes | None = None,
    ) -> VersionCommitted:
        """Commit an object of one blob, inline unless one is given (none for size 0)."""
        blobs = (blob or self.inline(size),) if size or blob else ()
        version = self.version(blobs[0].size if blobs else 0, etag, attributes)
        committed = await self.apply(
            CommitVersion(self.session_id, self.bucket.bucket_id, object_key, version, blobs, (), conditions)
        )
        assert isinstance(committed, VersionCommitted)
        return committed

    async def share(
        self, source: Sequence[Extent], object_key: bytes, etag: str = "e", conditions: Conditions = NO_CONDITIONS
    ) -> VersionCommitted:
        """Commit a copy that shares the extents of another version."""
        version = self.version(sum(extent.length for extent in source), etag)
        committed = await self.apply(
            CommitVersion(self.session_id, self.bucket.bucket_id, object_key, version, (), tuple(source), conditions)
        )
        assert isinstance(committed, VersionCommitted)
        return committed

    async def delete(
        self,
        object_key: bytes,
        version_id: str | None = None,
        conditions: Conditions = NO_CONDITIONS,
        *,
        noncurrent_only: bool = False,
    ) -> Deleted:
        """Delete one target."""
        target = DeleteTarget(object_key, version_id, conditions, noncurrent_only)
        (outcome,) = await self.apply(DeleteVersions(self.bucket.bucket_id, (target,)))
        assert isinstance(outcome, Deleted)
        return outcome

    async def create_upload(self, object_key: bytes, upload_id: str | None = None) -> Upload:
        upload = await self.apply(
            CreateUpload(upload_id or os.urandom(16).hex(), self.bucket.bucket_id, object_key, OWNER, Attributes())
        )
        assert isinstance(upload, Upload)
        return upload

    async def put_part(self, upload: Upload, part_number: int, size: int = PART_BYTES, etag: str = "p") -> PartInfo:
        part = await self.apply(
            PutPart(
                self.session_id,
                upload.bucket_id,
                upload.object_key,
                upload.upload_id,
                part_number,
                size,
                etag,
                self.chunked(size) if size else None,
            )
        )
        assert isinstance(part, PartInfo)
        return part

    async def complete(
        self,
        upload: Upload,
        parts: Sequence[PartInfo],
        etag: str = "m-1",
        conditions: Conditions = NO_CONDITIONS,
        version: NewVersion | None = None,
    ) -> VersionCommitted:
        version = version or self.version(sum(part.size for part in parts), etag)
        committed = await self.apply(
            CompleteUpload(
                self.session_id,
                upload.bucket_id,
                upload.object_key,
                upload.upload_id,
                version,
                tuple(parts),
                conditions,
            )
        )
        assert isinstance(committed, VersionCommitted)
        return committed

    async def abort(self, upload: Upload) -> None:
        await self.apply(AbortUpload(upload.bucket_id, upload.object_key, upload.upload_id))

    async def etag(self, object_key: bytes, version_id: str | None = None) -> str:
        """Of the current version, or of one."""
        return (await self.metadata.read_version(self.bucket.bucket_id, object_key, version_id)).version.etag

    async def released(self) -> set[bytes]:
        """Ids of all released blobs."""
        return {blob.blob_id for blob in await self.metadata.list_released_blobs(2**62, 1_000_000)}

    async def apply(self, command: Any) -> Any:
        return await self.metadata.apply(command)
