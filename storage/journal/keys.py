"""The keys of the journal: the keyring's system key by its version, and what is sealed under it."""

from __future__ import annotations

import secrets

from storage.crypto.keyring import SYSTEM_KEY_ID, Keyring
from storage.journal.record import SegmentHeader, SegmentSeal, make_segment_id
from storage.journal.snapshot_format import SnapshotSeal, make_snapshot_id, parse_key_version

RANDOM_BYTES = 8


class JournalKeys:
    """Of one cluster. A call may read one small file of the keyring. UnknownKeyId, Corrupt, as the keyring."""

    def __init__(self, keyring: Keyring, cluster_id: bytes) -> None:
        self._keyring = keyring
        self.cluster_id = cluster_id

    def new_segment(
        self, incarnation: int, history: int, first_sequence: int, opened_ms: int, schema_version: int, copies: int
    ) -> SegmentSeal:
        """A segment under a new id."""
        current = self._keyring.current_bucket_key(SYSTEM_KEY_ID)
        segment_id = make_segment_id(incarnation, secrets.token_bytes(RANDOM_BYTES))
        header = SegmentHeader(
            self.cluster_id, segment_id, history, first_sequence, opened_ms, schema_version, current.version, copies
        )
        return SegmentSeal(current.secret, header)

    def segment(self, header: SegmentHeader) -> SegmentSeal:
        """Of a segment that was found."""
        return SegmentSeal(self._keyring.bucket_key(SYSTEM_KEY_ID, header.key_version), header)

    def new_snapshot(self, sequence: int) -> tuple[bytes, SnapshotSeal]:
        """A snapshot under a new id. → (id, seal)"""
        current = self._keyring.current_bucket_key(SYSTEM_KEY_ID)
        snapshot_id = make_snapshot_id(sequence, secrets.token_bytes(RANDOM_BYTES))
        return snapshot_id, SnapshotSeal(current.secret, current.version, self.cluster_id, snapshot_id)

    def snapshot(self, snapshot_id: bytes, data: bytes) -> SnapshotSeal:
        """Of a snapshot that was found; data: its manifest or a piece. Corrupt."""
        version = parse_key_version(data)
        return SnapshotSeal(self._keyring.bucket_key(SYSTEM_KEY_ID, version), version, self.cluster_id, snapshot_id)


def new_history() -> int:
    """At random; never 0, which is none."""
    return secrets.randbits(62) + 1
