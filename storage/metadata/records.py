"""How nested records sit in columns: msgpack for documents that SQL never looks into, u32 numbers for node lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from storage.model import (
    Attributes,
    Checksum,
    ChecksumAlgorithm,
    ChecksumType,
    Grant,
    LockMode,
    NodeReport,
    ObjectLock,
    Upload,
)

NODE_NUMBER_BYTES = 4
_UNLOCKED = Attributes().lock
_UNLOCKED_COLUMNS = ("", 0, False)

encode_record = msgspec.msgpack.Encoder().encode
decode_attributes = msgspec.msgpack.Decoder(Attributes).decode
decode_checksum = msgspec.msgpack.Decoder(Checksum).decode
decode_report = msgspec.msgpack.Decoder(NodeReport).decode
_decode_tags = msgspec.msgpack.Decoder(dict[str, str]).decode
_decode_acl = msgspec.msgpack.Decoder(tuple[Grant, ...]).decode


def encode_nodes(nodes: Sequence[int]) -> bytes:
    """Node numbers in order, 4 bytes each, big-endian."""
    return b"".join(number.to_bytes(NODE_NUMBER_BYTES, "big") for number in nodes)


@lru_cache(maxsize=4096)  # a cluster has few distinct placements
def decode_nodes(raw: bytes) -> tuple[int, ...]:
    """The inverse of encode_nodes."""
    return tuple(
        int.from_bytes(raw[at : at + NODE_NUMBER_BYTES], "big") for at in range(0, len(raw), NODE_NUMBER_BYTES)
    )


def encode_version_attributes(attributes: Attributes) -> bytes:
    """Of a version: its lock has columns of its own, as it decides what may be deleted."""
    if attributes.lock is not _UNLOCKED:  # which is what nearly all of them have
        attributes = msgspec.structs.replace(attributes, lock=_UNLOCKED)
    return encode_record(attributes)


def overlay_attributes(
    attributes: Attributes,
    tags: bytes | None,
    acl: bytes | None,
    lock_mode: str,
    retain_until_ms: int,
    legal_hold: int,
) -> Attributes:
    """What a version was committed with, and over it what was changed since."""
    return msgspec.structs.replace(
        attributes,
        tags=attributes.tags if tags is None else _decode_tags(tags),
        acl=attributes.acl if acl is None else _decode_acl(acl),
        lock=lock_of(lock_mode, retain_until_ms, legal_hold),
    )


def lock_columns(lock: ObjectLock) -> tuple[str, int, bool]:
    """lock_mode, retain_until_ms, legal_hold of a version."""
    if lock is _UNLOCKED:
        return _UNLOCKED_COLUMNS
    return lock.mode.value, lock.retain_until_ms if lock.mode else 0, lock.legal_hold


def lock_of(lock_mode: str, retain_until_ms: int, legal_hold: int) -> ObjectLock:
    """From the columns of a version."""
    return ObjectLock(LockMode(lock_mode), retain_until_ms, bool(legal_hold))


def upload_of(row: Iterable[Any]) -> Upload:
    """From upload_id, bucket_id, object_key, owner_id, initiated_ms, attributes, checksum_algorithm, checksum_type."""
    upload_id, bucket_id, object_key, owner_id, initiated_ms, attributes, algorithm, kind = row
    return Upload(
        upload_id,
        bucket_id,
        object_key,
        owner_id,
        initiated_ms,
        decode_attributes(attributes),
        None if algorithm is None else ChecksumAlgorithm(algorithm),
        None if kind is None else ChecksumType(kind),
    )
