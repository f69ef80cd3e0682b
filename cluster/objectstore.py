"""ObjectStore: the door that s3gw enters for objects. Raises the tree of storage.base.errors, and what a Body raises.

Every write is: store the body (cluster.writer), let it prove itself, commit. Nothing is visible before the commit, and
nothing stays of a write that was not committed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import msgspec

from cluster.body import Body, BodyDigests, HeldBody, OpenEndedBody
from cluster.copied_body import CopiedBody, NewHasher
from cluster.customer_seals import CHECK, CustomerSeals
from cluster.held_puts import HeldPuts
from cluster.put_request import PutRequest, PutResult
from cluster.reader import MAC_KEY_VERSION, ObjectReading, Reader, SmallReading
from cluster.seal import Seal
from cluster.writer import Writer, Written
from storage.base.clock import Clock
from storage.base.errors import CustomerKeyMissing, CustomerKeyRefused, NoSuchKey, NoSuchVersion, SourceChanged
from storage.base.ids import VERSION_UID_BYTES
from storage.crypto.customer import CustomerKey
from storage.crypto.keyring import Keyring
from storage.crypto.keys import make_version_mac
from storage.metadata.commands import (
    AbortUpload,
    ChangeObject,
    CommitVersion,
    CompleteUpload,
    Conditions,
    CreateUpload,
    Deleted,
    DeleteTarget,
    DeleteVersions,
    NewVersion,
    ObjectChanged,
    PutPart,
    VersionCommitted,
)
from storage.metadata.interface import CompletedUpload, HeadPage, Metadata, PartPage, UploadPage, VersionPage
from storage.model import (
    Attributes,
    Bucket,
    ByteRange,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    Extent,
    PartInfo,
    Upload,
    Version,
)

__all__ = ["CopySource", "ObjectReading", "ObjectStore", "PutRequest", "PutResult", "Seal", "SmallReading"]

DEFAULT_CHECKSUM = ChecksumAlgorithm.CRC64NVME
UPLOAD_ID_RANDOM_BYTES = 26
OPAQUE_ETAG_BYTES = 16
"""of what is sealed by request: as long as an MD5, and none"""

_BUCKETS_OWN = Seal()


class CopySource(NamedTuple):
    """Where a copy reads from; `version` is what the caller authorised and checked conditions against."""

    bucket: Bucket
    version: Version
    """unlocked"""
    customer_key: CustomerKey | None = None


class ObjectStore:
    """put, get, copy, delete, list and multipart."""

    def __init__(
        self,
        cluster_id: bytes,
        keyring: Keyring,
        metadata: Metadata,
        writer: Writer,
        held: HeldPuts,
        reader: Reader,
        new_hasher: NewHasher,
        clock: Clock,
    ) -> None:
        self.held = held
        """what puts a body that is all in memory"""
        self._cluster_id = cluster_id
        self._keyring = keyring
        self._customers = CustomerSeals(cluster_id, keyring)
        self._metadata = metadata
        self._writer = writer
        self._reader = reader
        self._new_hasher = new_hasher
        self._clock = clock

    # ------------------------------------------------------------------ objects

    async def put(self, bucket: Bucket, object_key: bytes, body: Body, request: PutRequest) -> PutResult:
        """Chunk, seal, place, fan out, commit. Nothing of it is visible or stays when anything raises."""
        async with self._writer.write(bucket, body, request.seal) as written:
            return await self._commit(written, bucket, object_key, await body.finish(), request)

    async def put_open_ended(
        self, bucket: Bucket, object_key: bytes, body: OpenEndedBody, request: PutRequest
    ) -> PutResult:
        """As put, of a body whose end comes as a surprise: what is sure of it is one blob, its tail another."""
        async with self._writer.write(bucket, body, request.seal) as written:
            digests = await body.finish()
            async with self._writer.write(bucket, HeldBody(body.tail), request.seal) as tail:
                tail.follow(written)
                return await self._commit(tail, bucket, object_key, digests, request)

    def unlock(self, bucket: Bucket, version: Version, customer_key: CustomerKey | None) -> Version:
        """A version that was read by `head`, as who brought this key (None: none) may see it. CustomerKeyRefused.

        Where neither the version's `attributes.sse` nor the request says anything of encryption, it need not be called.
        """
        return self._reader.unlock(bucket, version, customer_key)

    async def head(
        self, bucket: Bucket, object_key: bytes, version_id: str | None = None, part_number: int | None = None
    ) -> ObjectReading:
        """One metadata read and no body (start/end are the part's span when a part is asked for)."""
        return await self._reader.head(bucket, object_key, version_id, part_number)

    def read_small(self, bucket: Bucket, object_key: bytes) -> SmallReading | None:
        """The current version where it is at hand, without waiting for anything; None: `head` and `open` know."""
        return self._reader.read_small(bucket, object_key)

    def open(
        self,
        bucket: Bucket,
        object_key: bytes,
        version_id: str | None = None,
        byte_range: ByteRange | None = None,
        part_number: int | None = None,
        customer_key: CustomerKey | None = None,
    ) -> AbstractAsyncContextManager[ObjectReading]:
        """One metadata read on entry (NoSuchKey, NoSuchVersion, InvalidPart, CustomerKeyRefused); datanodes are asked
        when iterated."""
        return self._reader.open(bucket, object_key, version_id, byte_range, part_number, customer_key)

    async def copy(
        self, source: CopySource, bucket: Bucket, object_key: bytes, request: PutRequest, algorithm: ChecksumAlgorithm
    ) -> PutResult:
        """Share the source's blobs where bucket key, mode and redundancy allow and the source is a single-PUT version
        that has this checksum; else stream and seal again. ETag: MD5 of the plaintext, also for a multipart source.

        SourceChanged when the source is not the authorised version any more when the copy begins; once begun, a copy
        is of what it began with, whatever happens to the source meanwhile.
        """
        async with self._open_source(source) as reading:
            if self._may_share(source, bucket, reading, request, algorithm):
                try:
                    return await self._share(source.version, reading.extents, bucket, object_key, request)
                except SourceChanged:
                    pass  # deleted since: its blobs are released, and kept for as long as this read is open
            body = CopiedBody(reading, 0, source.version.size, self._new_hasher, algorithm)
            async with self._writer.write(bucket, body, request.seal) as written:
                digests = await body.finish()
                return await self._commit(written, bucket, object_key, digests, request)

    async def delete(
        self, bucket: Bucket, targets: Sequence[DeleteTarget], *, bypass_governance: bool = False
    ) -> list[Deleted]:
        """One outcome per target, in order."""
        command = DeleteVersions(bucket.bucket_id, tuple(targets), bypass_governance)
        deleted: list[Deleted] = await self._metadata.apply(command)
        return deleted

    async def change(self, command: ChangeObject) -> ObjectChanged:
        """Tags, ACL, retention or legal hold of a version; see ChangeObject."""
        changed: ObjectChanged = await self._metadata.apply(command)
        return changed

    async def list(self, bucket: Bucket, *, prefix: bytes, after: bytes, delimiter: bytes, limit: int) -> HeadPage:
        """Current versions in key order; see Metadata.list_heads."""
        return await self._metadata.list_heads(
            bucket.bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=limit
        )

    async def list_versions(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
    ) -> VersionPage:
        """Every version and marker, by key and the newest first; see Metadata.list_versions."""
        return await self._metadata.list_versions(
            bucket.bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

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
        """An upload that stays open until it is completed or aborted. UnknownKeyId."""
        if seal is not None:
            seal.choose_key(self._keyring, self._cluster_id, bucket.bucket_key_id)  # known now, not with the first part
            if seal.customer_key is not None:
                attributes = self._customers.begin(bucket, attributes, seal.customer_key)
        # Uploads are listed by key and id, and S3 lists those of one key by the time of their creation.
        upload_id = f"{self._clock.now_ms():012x}{secrets.token_hex(UPLOAD_ID_RANDOM_BYTES)}"
        upload: Upload = await self._metadata.apply(
            CreateUpload(upload_id, bucket.bucket_id, object_key, owner_id, attributes, algorithm, checksum_type)
        )
        return upload

    async def read_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> Upload:
        """NoSuchUpload."""
        return await self._metadata.read_upload(bucket.bucket_id, object_key, upload_id)

    async def put_part(
        self, bucket: Bucket, upload: Upload, part_number: int, body: Body, seal: Seal | None = None
    ) -> PartInfo:
        """Store one part; a part of this number that was there before is replaced.

        seal: what the upload was created with, and the customer's key of this request. CustomerKeyRefused.
        """
        customer_key = None if seal is None else seal.customer_key
        if customer_key is not None or upload.attributes.sse:
            self._customers.verify(bucket, upload.attributes, customer_key)
        async with self._writer.write(bucket, body, seal) as written:
            digests = await body.finish()
            checksum = digests.checksum
            if customer_key is not None:
                checksum = self._customers.hide(bucket, upload.attributes, customer_key, checksum)
            part: PartInfo = await written.commit(
                PutPart(
                    written.session_id,
                    bucket.bucket_id,
                    upload.object_key,
                    upload.upload_id,
                    part_number,
                    0 if written.blob is None else written.blob.size,
                    _choose_etag(upload.attributes, digests),
                    written.blob,
                    checksum,
                )
            )
            return part if customer_key is None else msgspec.structs.replace(part, checksum=digests.checksum)

    async def copy_part(
        self,
        source: CopySource,
        byte_range: tuple[int, int] | None,
        bucket: Bucket,
        upload: Upload,
        part_number: int,
        seal: Seal | None = None,
    ) -> PartInfo:
        """byte_range: [start, end) of the source, validated by the caller. Streams and seals again. SourceChanged."""
        start, end = byte_range or (0, source.version.size)
        algorithm = upload.checksum_algorithm or DEFAULT_CHECKSUM
        async with self._open_source(source, ByteRange(start, end - 1) if end > start else None) as reading:
            body = CopiedBody(reading, start, end, self._new_hasher, algorithm)
            return await self.put_part(bucket, upload, part_number, body, seal)

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
        """parts, etag and attributes (with the combined checksum) as the caller worked them out from list_parts, which
        was given the same customer's key."""
        if CHECK in attributes.sse:
            hide, checksum = self._customers.hide, attributes.checksum
            if customer_key is None:
                assert checksum is None, "without its key nothing is known of a part's checksum"
            else:
                attributes = _with_checksum(attributes, hide(bucket, attributes, customer_key, checksum))
                parts = [
                    msgspec.structs.replace(part, checksum=hide(bucket, attributes, customer_key, part.checksum))
                    for part in parts
                ]
        extents: list[Extent] = []
        size = 0
        for part in parts:
            if part.size:
                extents.append(Extent(part.blob_id, size, part.size, part.part_number))
            size += part.size
        version = self._new_version(bucket, extents, size, etag, upload.owner_id, attributes)
        session_id = self._writer.session_id
        committed: VersionCommitted = await self._metadata.apply(
            CompleteUpload(
                session_id, bucket.bucket_id, upload.object_key, upload.upload_id, version, tuple(parts), conditions
            )
        )
        return committed

    async def find_completed_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> CompletedUpload | None:
        """What an upload that is finished answered, for a retry."""
        return await self._metadata.find_completed_upload(bucket.bucket_id, object_key, upload_id)

    async def abort_upload(self, bucket: Bucket, object_key: bytes, upload_id: str) -> None:
        """Its parts are released. NoSuchUpload."""
        await self._metadata.apply(AbortUpload(bucket.bucket_id, object_key, upload_id))

    async def list_parts(
        self,
        bucket: Bucket,
        object_key: bytes,
        upload_id: str,
        after: int,
        limit: int,
        customer_key: CustomerKey | None = None,
    ) -> PartPage:
        """NoSuchUpload. Without the customer's key that the upload was created with, parts show no checksum; another
        one is refused: CustomerKeyRefused."""
        page = await self._metadata.list_parts(bucket.bucket_id, object_key, upload_id, after, limit)
        attributes = page.upload.attributes
        if customer_key is not None or CHECK in attributes.sse:
            show = self._customers.show
            with contextlib.suppress(CustomerKeyMissing):
                self._customers.verify(bucket, attributes, customer_key)
            parts = [
                msgspec.structs.replace(part, checksum=show(bucket, attributes, customer_key, part.checksum))
                for part in page.parts
            ]
            page = page._replace(parts=tuple(parts))
        return page

    async def list_uploads(
        self, bucket: Bucket, *, prefix: bytes, delimiter: bytes, after: tuple[bytes, str], limit: int
    ) -> UploadPage:
        """Open uploads ordered by (key, upload id); see Metadata.list_uploads."""
        return await self._metadata.list_uploads(
            bucket.bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # ------------------------------------------------------------------ within

    async def _commit(
        self, written: Written, bucket: Bucket, object_key: bytes, digests: BodyDigests, request: PutRequest
    ) -> PutResult:
        command = self._plan_commit(written, bucket, object_key, digests, request)
        committed: VersionCommitted = await written.commit(command)
        return PutResult(committed, digests.checksum, command.version.size)

    def _plan_commit(
        self, written: Written, bucket: Bucket, object_key: bytes, digests: BodyDigests, request: PutRequest
    ) -> CommitVersion:
        blobs = written.blobs
        size = sum([blob.size for blob in blobs])
        attributes = _with_checksum(request.attributes, digests.checksum)
        if request.seal is not None and (customer_key := request.seal.customer_key) is not None:
            attributes = self._customers.begin(bucket, attributes, customer_key)
            hidden = self._customers.hide(bucket, attributes, customer_key, digests.checksum)
            attributes = _with_checksum(attributes, hidden)
        etag = _choose_etag(attributes, digests)
        version = self._new_version(bucket, written.extents, size, etag, request.owner_id, attributes)
        return CommitVersion(
            written.session_id,
            bucket.bucket_id,
            object_key,
            version,
            blobs=blobs,
            conditions=request.conditions,
        )

    async def _share(
        self, version: Version, extents: Sequence[Extent], bucket: Bucket, object_key: bytes, request: PutRequest
    ) -> PutResult:
        """A copy that moves no byte: a new version of the same blobs. SourceChanged when they were released."""
        checksum = version.attributes.checksum
        attributes = _with_checksum(request.attributes, checksum)
        copied = self._new_version(bucket, extents, version.size, version.etag, request.owner_id, attributes)
        committed: VersionCommitted = await self._metadata.apply(
            CommitVersion(
                self._writer.session_id,
                bucket.bucket_id,
                object_key,
                copied,
                shared=tuple(extents),
                conditions=request.conditions,
            )
        )
        return PutResult(committed, checksum, version.size)

    def _may_share(
        self,
        source: CopySource,
        bucket: Bucket,
        reading: ObjectReading,
        request: PutRequest,
        algorithm: ChecksumAlgorithm,
    ) -> bool:
        """Within one bucket, for the same mode and names, and blobs that are sealed as they would be now: under the
        same key in its newest version. Never where a customer's key is in it: `sse` holds a check then."""
        version = source.version
        checksum = version.attributes.checksum
        key = (request.seal or _BUCKETS_OWN).choose_key(self._keyring, self._cluster_id, bucket.bucket_key_id)
        return (
            version.part_count == 0
            and version.size > 0
            and source.bucket.bucket_key_id == bucket.bucket_key_id
            and version.attributes.sse == request.attributes.sse
            and all((blob.bucket_key_id, blob.bucket_key_version) == key[:2] for blob in reading.blobs)
            and checksum is not None
            and checksum.algorithm is algorithm
            and checksum.type is ChecksumType.FULL_OBJECT
            and all(self._writer.would_write(bucket, blob.size, blob.redundancy) for blob in reading.blobs)
        )

    @asynccontextmanager
    async def _open_source(
        self, source: CopySource, byte_range: ByteRange | None = None
    ) -> AsyncIterator[ObjectReading]:
        """The very version that was authorised; SourceChanged when it is not there any more."""
        wanted = source.version
        async with AsyncExitStack() as opened:
            try:
                reading = await opened.enter_async_context(
                    self._reader.open(
                        source.bucket, wanted.object_key, wanted.version_id, byte_range, None, source.customer_key
                    )
                )
            except (NoSuchKey, NoSuchVersion):
                raise SourceChanged("the source of a copy was deleted") from None
            except CustomerKeyRefused:  # it fitted when the source was authorised
                raise SourceChanged("the source of a copy was replaced") from None
            if reading.version.uid != wanted.uid:
                raise SourceChanged("the source of a copy was replaced")
            yield reading

    def _new_version(
        self, bucket: Bucket, extents: Sequence[Extent], size: int, etag: str, owner_id: str, attributes: Attributes
    ) -> NewVersion:
        uid = os.urandom(VERSION_UID_BYTES)
        mac_key = self._keyring.bucket_key(bucket.bucket_key_id, MAC_KEY_VERSION)
        mac = make_version_mac(mac_key, self._cluster_id, uid, size, extents)
        return NewVersion(uid, size, etag, owner_id, attributes, mac)


def _choose_etag(attributes: Attributes, digests: BodyDigests) -> str:
    """MD5 of the plaintext, but for what was sealed by request, as AWS has it."""
    return secrets.token_hex(OPAQUE_ETAG_BYTES) if attributes.sse else digests.md5.hex()


def _with_checksum(attributes: Attributes, checksum: Checksum | None) -> Attributes:
    return attributes if attributes.checksum == checksum else msgspec.structs.replace(attributes, checksum=checksum)
