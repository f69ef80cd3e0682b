"""The write side of a gateway: plaintext blocks → chunks → sealed frames → all pieces at once → a blob to commit.

    async with writer.write(bucket, body) as written:    # the body's chunks are durable on their nodes now
        digests = await body.finish()
        committed = await written.commit(CommitVersion(…, blobs=written.blobs))

1. A small body is sealed whole and becomes part of the commit itself; no datanode is asked.
2. A large one is cut; each chunk gets its own data key and its own nodes, and streams to them as it comes: as replicas
   or as fragments, as the bucket's redundancy and the size of the body have it.
   A body of one chunk that is all in memory is sealed and sent in one go (cluster.whole_write).
3. Leaving the context with an error takes everything back: nothing stays that a commit does not reference. An error
   that leaves the outcome of the commit unknown deletes nothing; the metadata decides (see Cleanup.start_releasing).

What a crash leaves: before the commit, unreferenced chunks of a session that will be fenced; after it, nothing.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cluster.blob_write import BlobWrite, WriteServices
from cluster.body import Body, HeldBody
from cluster.bucket_redundancy import redundancy_of_blob
from cluster.redundancy import INLINE, Redundancy
from cluster.seal import Seal
from cluster.whole_write import WHOLE_BYTES_MAX, WholeWrite, seal_inline
from storage.base.errors import (
    ChunkError,
    ChunkTruncated,
    Corrupt,
    FrostbyteError,
    NotEnoughNodes,
    Refused,
    SessionFenced,
    Unavailable,
)
from storage.base.ids import SESSION_ID_BYTES
from storage.crypto.envelope import Buffer
from storage.crypto.keyring import BucketKey
from storage.metadata.commands import Command
from storage.model import Blob, Bucket, Extent

log = logging.getLogger(__name__)


class Outcome(enum.Enum):
    """Of the commit of what was written."""

    NOT_TRIED = "not tried"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    COMMITTED = "committed"


class Written:
    """A body that is stored and not visible yet."""

    def __init__(self, services: WriteServices, session_id: bytes, blob: Blob | None) -> None:
        self.session_id = session_id
        """what its commit must name"""
        self.blob = blob
        """None for an empty body"""
        self.outcome = Outcome.NOT_TRIED
        self._services = services
        self._before: Written | None = None

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """As CommitVersion takes it."""
        before = () if self._before is None else self._before.blobs
        return before if self.blob is None else (*before, self.blob)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """What the version's MAC is made over."""
        extents: list[Extent] = []
        offset = 0
        for blob in self.blobs:
            extents.append(Extent(blob.blob_id, offset, blob.size))
            offset += blob.size
        return tuple(extents)

    def follow(self, before: Written) -> None:
        """Be the end of what was written before: both are committed by this one. Unavailable when the session that
        wrote the one was replaced before the other."""
        if self.blob is None:
            self.session_id = before.session_id
        elif before.blob is not None and before.session_id != self.session_id:
            raise Unavailable("the write session was replaced in the middle of a body")
        self._before = before

    async def commit(self, command: Command) -> Any:
        """Apply the command that makes it visible. Its refusals; Unavailable, after which the outcome is not known."""
        self._settle(Outcome.UNKNOWN)
        try:
            answer = await self._services.metadata.apply(command)
        except Refused as error:
            self._settle(outcome_of(error))
            raise
        self._settle(Outcome.COMMITTED)
        return answer

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if self._before is not None:
            self._before.outcome = outcome


def outcome_of(error: FrostbyteError) -> Outcome:
    """Of a commit that ended with it. A fenced session is also said of a blob that is recorded already, so that it
    proves nothing about the chunks."""
    is_refused = isinstance(error, Refused) and not isinstance(error, SessionFenced)
    return Outcome.REFUSED if is_refused else Outcome.UNKNOWN


class Writer:
    """One per worker."""

    def __init__(self, services: WriteServices) -> None:
        self._services = services

    @property
    def session_id(self) -> bytes:
        """What a commit without new blobs must name. Unavailable."""
        return self._services.session.session_id

    def would_write(self, bucket: Bucket, size: int, redundancy: str) -> bool:
        """Whether a body of this size would be stored in this way now."""
        settings = self._services.settings
        if size <= settings.inline_bytes_max:
            return redundancy == INLINE
        return redundancy == str(redundancy_of_blob(bucket, settings.redundancy, size))

    @asynccontextmanager
    async def write(self, bucket: Bucket, body: Body, seal: Seal | None = None) -> AsyncIterator[Written]:
        """Store the body's blocks; its `finish` is the caller's to call. seal: None for the bucket's key alone.

        Unavailable, NotEnoughNodes, UnknownKeyId (before the body is asked for anything); what the body raises.
        """
        services, settings = self._services, self._services.settings
        if seal is None:
            key = services.keyring.current_bucket_key(bucket.bucket_key_id)
        else:
            key = seal.choose_key(services.keyring, settings.cluster_id, bucket.bucket_key_id)
        if body.length <= settings.inline_bytes_max:
            yield await self._write_inline(key, body)
            return
        redundancy = redundancy_of_blob(bucket, settings.redundancy, body.length)
        session = services.session.enter()
        blob_write: BlobWrite | WholeWrite | None = None
        written: Written | None = None
        try:
            if isinstance(body, HeldBody) and body.may_be_whole and self.fits_whole(redundancy, body.length):
                blob_write = await self.send_whole(
                    WholeWrite(services, key, session.next_blob_id(), body.data, redundancy)
                )
            if blob_write is None:
                blob_write = BlobWrite(services, key, session.next_blob_id(), body.length, redundancy)
                await blob_write.send(body)
            blob = blob_write.describe()
            written = Written(services, blob.blob_id[:SESSION_ID_BYTES], blob)
            yield written
        except BaseException:
            # Also when the request was cancelled: the client is gone, its chunks must go as well.
            if blob_write is not None and (written is None or written.outcome is not Outcome.COMMITTED):
                undo = self.undo(blob_write, Outcome.NOT_TRIED if written is None else written.outcome)
                await asyncio.shield(services.cleanup.start(undo))
            raise
        finally:
            session.leave()

    async def send_whole(self, whole: WholeWrite) -> WholeWrite | None:
        """None: it cannot be written in this way, and what was tried is taken back. Whatever else it raises, nothing of
        it stays."""
        try:
            await whole.send()
        except BaseException as error:
            undo = self._services.cleanup.start(self.undo(whole, Outcome.NOT_TRIED))
            if isinstance(error, NotEnoughNodes | ChunkError | Corrupt | Unavailable):
                log.info("a body of one chunk is written anew, in pieces: %s: %s", type(error).__name__, error)
                return None
            await asyncio.shield(undo)
            raise
        return whole

    async def _write_inline(self, key: BucketKey, body: Body) -> Written:
        services = self._services
        blocks: list[Buffer] = []
        size = 0
        async for block in body:
            blocks.append(block)
            size += len(block)
            if size > body.length:
                break
        if size != body.length:
            await body.finish()
            raise ChunkTruncated(f"{size} bytes came where {body.length} were announced")
        if not size:
            return Written(services, services.session.session_id, None)
        return self._seal_inline(key, b"".join(blocks))

    def fits_whole(self, redundancy: Redundancy, size: int) -> bool:
        """Whether a body of this size, where it is held in memory, is sent to its nodes in one go."""
        return not redundancy.is_erasure and size <= min(WHOLE_BYTES_MAX, self._services.settings.chunk_bytes)

    def _seal_inline(self, key: BucketKey, plaintext: Buffer) -> Written:
        services = self._services
        blob_id = services.session.next_blob_id()
        return Written(services, blob_id[:SESSION_ID_BYTES], seal_inline(services.settings, key, blob_id, plaintext))

    async def undo(self, blob_write: BlobWrite | WholeWrite, outcome: Outcome) -> None:
        """Of a commit that was not tried, was refused or may come yet: take back what nothing references then."""
        services = self._services
        await blob_write.abort()
        blob = blob_write.describe()
        if outcome is Outcome.UNKNOWN:
            services.cleanup.start_releasing(blob)
        elif outcome is Outcome.NOT_TRIED or not await self._has_row(blob):
            await services.cleanup.take_back(blob, blob_write.places)

    async def _has_row(self, blob: Blob) -> bool:
        """A last look before a commit's chunks are deleted: the refusal may have been of its second delivery."""
        try:
            async with asyncio.timeout(self._services.settings.deadlines.metadata_s):
                return bool(await self._services.metadata.find_referenced_blobs([blob.blob_id]))
        except (Unavailable, TimeoutError):
            return True
