"""SANS-IO. Orders to set aside pieces that were judged, each told by what its datanode had said of it (BATCH_INSPECT).

    POST /v1/batch/quarantine-judged   [[id, [length, digest, stored_ms, verified_ms] | nil], …] → [bool, …]

A datanode of before this order has no such target (404). BATCH_QUARANTINE, which it has, sets aside whatever is there
under an id: an order that comes late, or twice, then takes what was made in the place of the piece that was judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from storage.base.ids import chunk_id_from_bytes
from storage.chunks.store import DIGEST_BYTES, Buffer, ChunkState, Judged
from storage.datanode.wire import ChunkIdBytes, Items, decode, encode

BATCH_QUARANTINE_JUDGED = "/v1/batch/quarantine-judged"

_judged = msgspec.msgpack.Decoder(Annotated[list[tuple[ChunkIdBytes, ChunkState | None]], Items])


def encode_judged(judged: Sequence[Judged]) -> bytes:
    """The body of BATCH_QUARANTINE_JUDGED."""
    return encode([(chunk_id.to_bytes(), state) for chunk_id, state in judged])


def parse_judged(body: Buffer) -> list[Judged]:
    """ValueError."""
    judged = decode(_judged, body)
    if any(state is not None and len(state.digest) != DIGEST_BYTES for _, state in judged):
        raise ValueError(f"a digest has {DIGEST_BYTES} bytes")
    return [(chunk_id_from_bytes(raw), state) for raw, state in judged]
