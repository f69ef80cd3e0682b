"""PUTs of bodies that are all in memory and verified: one chunk under the bucket's own key, committed by a callback.

It does what ObjectStore.put does, for what most objects are when all goes well, without the machinery that other bodies
need: no stream, no context, and nobody who waits for the commit. A small body becomes part of the commit; a larger one
is stored by a WholeWrite first. Whatever else there is about a body is for ObjectStore.put.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import msgspec

from cluster.blob_write import WriteServices
from cluster.body import BodyDigests
from cluster.bucket_redundancy import redundancy_of_blob
from cluster.put_request import PutRequest
from cluster.reader import MAC_KEY_VERSION
from cluster.redundancy import Redundancy
from cluster.session import Incarnation
from cluster.whole_write import WholeWrite, seal_inline
from cluster.writer import Writer, outcome_of
from storage.base.errors import FrostbyteError, Unavailable
from storage.base.ids import SESSION_ID_BYTES, VERSION_UID_BYTES
from storage.crypto.envelope import Buffer
from storage.crypto.keys import make_version_mac
from storage.metadata.commands import CommitVersion, NewVersion
from storage.model import Blob, Bucket, Extent

OnOutcome = Callable[[Any], None]
"""is told the VersionCommitted, or the FrostbyteError, later and once; must not raise"""


class HeldPut(NamedTuple):
    """All of a PUT."""

    bucket: Bucket
    object_key: bytes
    plaintext: Buffer
    """not empty"""
    digests: BodyDigests
    """with a checksum"""
    request: PutRequest
    """without a seal, and nothing asked of encryption"""


class HeldPuts:
    """One per worker, beside its ObjectStore."""

    def __init__(self, services: WriteServices, writer: Writer) -> None:
        self._services = services
        self._writer = writer
        self._at_once = services.metadata.at_once

    def is_small(self, size: int) -> bool:
        """Whether put_small takes a body of so many bytes."""
        return size <= self._services.settings.inline_bytes_max and self._at_once is not None

    def put_small(self, put: HeldPut, on_outcome: OnOutcome) -> None:
        """Let it be committed. Unavailable, UnknownKeyId: it was not, and will not be."""
        services = self._services
        assert self._at_once is not None, "it is small"
        key, mac_key = services.keyring.keys_to_write(put.bucket.bucket_key_id, MAC_KEY_VERSION)
        blob_id = services.session.next_blob_id()
        blob = seal_inline(services.settings, key, blob_id, put.plaintext)
        self._at_once.submit(self._plan_commit(put, blob, mac_key), on_outcome)

    def find_redundancy(self, bucket: Bucket, size: int) -> Redundancy | None:
        """How put_whole stores a body of so many bytes; None: it cannot. Corrupt as redundancy_of_blob."""
        if self._at_once is None:
            return None
        redundancy = redundancy_of_blob(bucket, self._services.settings.redundancy, size)
        return redundancy if self._writer.fits_whole(redundancy, size) else None

    async def put_whole(self, put: HeldPut, redundancy: Redundancy, on_outcome: OnOutcome) -> bool:
        """Store it, and let it be committed. False: it cannot be written in one go now; what was tried is taken back,
        and on_outcome is told nothing. Unavailable, UnknownKeyId: nothing will be committed."""
        services = self._services
        key, mac_key = services.keyring.keys_to_write(put.bucket.bucket_key_id, MAC_KEY_VERSION)
        session = services.session.enter()
        try:
            whole = await self._writer.send_whole(
                WholeWrite(services, key, session.next_blob_id(), put.plaintext, redundancy)
            )
        except BaseException:
            session.leave()
            raise
        if whole is None:
            session.leave()
            return False
        command = self._plan_commit(put, whole.describe(), mac_key)
        settle = partial(self._settle, session, whole, on_outcome)
        assert self._at_once is not None, "it has a redundancy"
        try:
            self._at_once.submit(command, settle)
        except Unavailable:
            await self._apply(command, settle)  # which waits for the owner to come back
        return True

    async def _apply(self, command: CommitVersion, settle: OnOutcome) -> None:
        outcome: Any = Unavailable("the request ended before its commit did", outcome="unknown")
        try:
            outcome = await self._services.metadata.apply(command)
        except FrostbyteError as error:
            outcome = error
        finally:
            settle(outcome)

    def _settle(self, session: Incarnation, whole: WholeWrite, on_outcome: OnOutcome, outcome: Any) -> None:
        """The commit is over. What was stored goes before the client is told that it was for nothing."""
        if not isinstance(outcome, FrostbyteError):
            session.leave()
            on_outcome(outcome)
            return

        def tell(_: Any) -> None:
            session.leave()
            on_outcome(outcome)

        undo = self._writer.undo(whole, outcome_of(outcome))
        self._services.cleanup.start(undo).add_done_callback(tell)

    def _plan_commit(self, put: HeldPut, blob: Blob, mac_key: bytes) -> CommitVersion:
        bucket, digests, request = put.bucket, put.digests, put.request
        uid = os.urandom(VERSION_UID_BYTES)
        extents = (Extent(blob.blob_id, 0, blob.size),)
        mac = make_version_mac(mac_key, self._services.settings.cluster_id, uid, blob.size, extents)
        attributes = msgspec.structs.replace(request.attributes, checksum=digests.checksum)
        version = NewVersion(uid, blob.size, digests.md5.hex(), request.owner_id, attributes, mac)
        session_id = blob.blob_id[:SESSION_ID_BYTES]
        return CommitVersion(
            session_id, bucket.bucket_id, put.object_key, version, blobs=(blob,), conditions=request.conditions
        )
