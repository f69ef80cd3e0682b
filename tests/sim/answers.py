"""What a client is told: by reads, and by writes; and what it may conclude from that."""

from __future__ import annotations

import asyncio

from cluster.assembly import Cluster
from storage.base.errors import SessionFenced, Unavailable
from storage.model import Bucket, ByteRange
from tests.sim.ledger import Fate, Ledger, Place
from tests.sim.network import Broken


class Seen:
    """What a read brought."""

    def __init__(self, etag: str, version_id: str, size: int, span: tuple[int, int], data: bytes) -> None:
        self.etag = etag
        self.version_id = version_id
        self.size = size
        self.span = span
        """of the object: from where to where"""
        self.data = data


async def read_object(
    cluster: Cluster,
    bucket: Bucket,
    key: bytes,
    version_id: str | None,
    byte_range: ByteRange | None,
    pause_s: float = 0.0,
) -> Seen:
    """In the gateway."""
    async with cluster.objects.open(bucket, key, version_id, byte_range) as reading:
        blocks: list[bytes] = []
        async for block in reading:
            blocks.append(bytes(block))
            if pause_s:
                await asyncio.sleep(pause_s)
        version = reading.version
        span = (reading.start, reading.end)
        return Seen(version.etag, version.version_id, version.size, span, b"".join(blocks))


def check_bytes(ledger: Ledger, place: Place, seen: Seen) -> str:
    """Whether they are those that were written; empty when they are."""
    content = ledger.content_of(seen.etag)
    if content is None:
        return ""
    if len(content) != seen.size:
        return f"{place} has {seen.size} bytes where {len(content)} were written"
    start, end = seen.span
    if content[start:end] != seen.data:
        return f"{place} gives other bytes than were written ({len(seen.data)} for {start} to {end})"
    return ""


def fate_of(told: object) -> Fate:
    """What a client may conclude from an answer, or from none."""
    if not isinstance(told, Exception):
        return Fate.DONE
    if isinstance(told, Broken):
        return Fate.UNKNOWN if told.sent else Fate.REFUSED
    if isinstance(told, TimeoutError | SessionFenced):
        return Fate.UNKNOWN
    if isinstance(told, Unavailable):
        return Fate.UNKNOWN if told.details.get("outcome") == "unknown" else Fate.REFUSED
    return Fate.REFUSED


def name_of_answer(told: object) -> str:
    return type(told).__name__ if isinstance(told, Exception) else ""
