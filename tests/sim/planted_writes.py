"""Bugs of what writes, commits and reads: see bugs.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cluster import chunk_write, chunk_writes, writer
from cluster.survival import SurviveMin
from storage.base.errors import Refused, SessionFenced, SourceChanged
from storage.base.ids import ChunkId
from storage.crypto import envelope
from storage.metadata import commands as c
from storage.metadata.sqlite import blobs, commits, heads, sessions, versions
from storage.metadata.sqlite.apply import HANDLERS
from storage.model import Extent
from tests.sim.bugs import Bug, change
from tests.sim.disks import SimDisk

_commit_version = commits.commit_version
_require_shareable = blobs.require_shareable
_release_blobs = blobs.release_blobs


async def _answer_first(disk: SimDisk, chunk_ids: Sequence[ChunkId]) -> None:
    loop: Any = asyncio.get_running_loop()
    loop.later(0.05, lambda: [disk._durable.pop(chunk_id, None) for chunk_id in chunk_ids])


def _settle(self: writer.Written, outcome: writer.Outcome) -> None:
    self.outcome = writer.Outcome.NOT_TRIED if outcome is writer.Outcome.UNKNOWN else outcome


def _commit_again(tx: Any, command: c.CommitVersion) -> Any:
    try:
        return _commit_version(tx, command)
    except SessionFenced as refusal:
        shared = tuple(Extent(blob.blob_id, 0, blob.size) for blob in command.blobs)
        try:
            return _commit_version(tx, msgspec.structs.replace(command, blobs=(), shared=shared))
        except SourceChanged:
            raise refusal from None


def _release_anyway(tx: Any, command: c.ReleaseBlobs) -> None:
    _release_blobs(tx, command)
    for blob in command.blobs:
        tx.execute(blobs._RELEASE, (tx.now_ms, blob.blob_id))


def _share_anyway(tx: Any, extent: Any) -> None:
    try:
        _require_shareable(tx, extent)
    except SourceChanged:
        return


def _release_shared(tx: Any, blob_id: bytes) -> None:
    if tx.execute(blobs._RELEASE, (tx.now_ms, blob_id)).rowcount == 0:
        tx.execute(blobs._DELETE_INLINE, (blob_id,))
        tx.execute(blobs._DELETE_BLOB, (blob_id,))


def _renew_anyway(tx: Any, command: c.RenewSession) -> None:
    try:
        sessions.renew_session(tx, command)
    except Refused:
        return


class _Unverified:
    """Opens whatever comes: AES-GCM is AES-CTR from block 2 on, and a tag."""

    def __init__(self, secret: bytes) -> None:
        self._sealing, self._secret = AESGCM(secret), secret
        self.encrypt, self.encrypt_into = self._sealing.encrypt, self._sealing.encrypt_into

    def decrypt(self, nonce: bytes, data: Any, associated_data: object) -> bytes:
        block = nonce + (2).to_bytes(4, "big")
        opening = Cipher(algorithms.AES(self._secret), modes.CTR(block)).decryptor()
        return opening.update(bytes(data[: -envelope.TAG_BYTES]))

    def decrypt_into(self, nonce: bytes, data: Any, associated_data: object, buf: Any) -> int:
        memoryview(buf)[:] = self.decrypt(nonce, data, associated_data)
        return len(buf)


_GARBLED = {"faults": ("weather", "slow"), "redundancy": "replica:2", "fault_every_s": 1.5}
_CROWDED = {"faults": ("crash", "full", "cut"), "redundancy": "replica:3", "fault_every_s": 1.5, "nodes": 4}
_LOST = {"faults": ("weather",), "fault_every_s": 1.0, "clients": 4, "pause_s": 0.2, "load_s": 50.0, "slowness": 0.0}
_BUSY = {"clients": 4, "pause_s": 0.2, "load_s": 50.0, "faults": ("slow",)}
_PAUSED = {
    "faults": ("pause",),
    "fault_every_s": 10.0,
    "gateways": 2,
    "masters": 1,
    "clients": 4,
    "redundancy": "replica:2",
    "chunk_bytes": 64 << 10,
    "sizes": (140_000,),
    "load_s": 90.0,
    "slowness": 0.9,
}

WRITE_BUGS = (
    Bug(
        "answered before synced",
        "A datanode answers a put before the chunk would survive a power cut.",
        change((SimDisk, "_sync", _answer_first)),
        "not durable on node",
        (1,),
        {"faults": ("slow",), "load_s": 4.0},
    ),
    Bug(
        "receipts not compared",
        "A replica counts whatever bytes its datanode says that it wrote.",
        change((chunk_write.ChunkWrite, "_check", lambda self, place, number, receipt: None)),
        "not durable on node",
        (6,),
        {**_GARBLED, "load_s": 14.0},
    ),
    Bug(
        "minimum not enforced",
        "A write is answered with fewer pieces than what must be survived asks for.",
        change((SurviveMin, "is_met", lambda self, redundancy, held: True)),
        "promised",
        (1,),
        {**_CROWDED, "load_s": 16.0},
    ),
    Bug(
        "unknown taken for refused",
        "After a commit whose answer was lost its chunks are deleted.",
        change((writer.Written, "_settle", _settle)),
        "where its row names it",
        (14,),
        {**_LOST, "load_s": 5.0},
    ),
    Bug(
        "budget not given back",
        "The memory of a written chunk stays taken.",
        change((chunk_writes.ReplicaWrite, "discard", lambda self: None)),
        "of its budget",
        (1,),
        {"faults": ("slow",), "redundancy": "replica:2", "load_s": 6.0},
    ),
    Bug(
        "fenced sessions commit",
        "A commit does not look whether its session was fenced.",
        change((heads, "_SELECT_WRITABLE", heads._SELECT_WRITABLE.replace("s.state", "'open'"))),
        "not durable on node",
        (7,),
        _PAUSED,
    ),
    Bug(
        "renewed though fenced",
        "A worker whose session was fenced is told that it still has it.",
        change((HANDLERS, c.RenewSession, _renew_anyway)),
        "takes no writes",
        (3,),
        _PAUSED,
    ),
    Bug(
        "applied twice",
        "A commit that is delivered a second time is applied a second time.",
        change((HANDLERS, c.CommitVersion, _commit_again)),
        "nobody was told of",
        (2,),
        {**_BUSY, "faults": ("weather",), "sizes": (700, 3_000)},
    ),
    Bug(
        "committed blobs released",
        "A blob that was given up is released although its commit was applied.",
        change((HANDLERS, c.ReleaseBlobs, _release_anyway)),
        "",
        (13,),
        _LOST,
    ),
    Bug(
        "shared blobs released",
        "A deleted version takes the blob with it that a copy of it still has.",
        change((versions, "release_unreferenced", _release_shared)),
        "",
        (3,),
        {**_BUSY, "sizes": (700, 3_000)},
    ),
    Bug(
        "conditions not looked at",
        "If-None-Match of a write is not compared in its commit.",
        change((commits, "check_conditions", lambda conditions, etag: None)),
        "is not there",
        (1,),
        {**_BUSY, "load_s": 8.0},
    ),
    Bug(
        "frames not verified",
        "A reader is given bytes whose tag was not looked at.",
        change((envelope, "AESGCM", _Unverified)),
        "other bytes than were written",
        (4,),
        {**_GARBLED, "faults": ("weather", "rot")},
    ),
)
