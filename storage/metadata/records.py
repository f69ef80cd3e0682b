"""How nested records sit in columns: msgpack for documents that SQL never looks into, u32 numbers for node lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from storage.model import Attributes, Checksum, ChecksumAlgorithm, ChecksumType, NodeReport, Upload

_NODE_NUMBER_BYTES = 4

encode_record = msgspec.msgpack.Encoder().encode
decode_attributes = msgspec.msgpack.Decoder(Attributes).decode
decode_checksum = msgspec.msgpack.Decoder(Checksum).decode
decode_report = msgspec.msgpack.Decoder(NodeReport).decode


def encode_nodes(nodes: Sequence[int]) -> bytes:
    """Node numbers in order, 4 bytes each, big-endian."""
    return b"".join(number.to_bytes(_NODE_NUMBER_BYTES, "big") for number in nodes)


@lru_cache(maxsize=4096)  # a cluster has few distinct placements
def decode_nodes(raw: bytes) -> tuple[int, ...]:
    """The inverse of encode_nodes."""
    return tuple(
        int.from_bytes(raw[at : at + _NODE_NUMBER_BYTES], "big") for at in range(0, len(raw), _NODE_NUMBER_BYTES)
    )


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
