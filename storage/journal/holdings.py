"""PURE. What a stock of the journal amounts to: what a recovery could read, how large it is, and who has all of it."""

from __future__ import annotations

from collections.abc import Mapping

from storage.datanode.journal_wire import JournalListing, parse_name
from storage.journal.retention import Keeping
from storage.journal.stock import Source, Stock, StoredSnapshot


def list_keeping(stock: Stock) -> Keeping:
    """Whole snapshots and segments that open."""
    return Keeping(
        {it.snapshot_id: it.manifest for it in stock.snapshots.values() if it.is_complete},
        {segment_id: it.header for segment_id, it in stock.segments.items()},
    )


def find_newest(stock: Stock, history: int) -> StoredSnapshot | None:
    """The newest whole snapshot of a history."""
    whole = [it for it in stock.snapshots.values() if it.is_complete and it.manifest.history == history]
    return max(whole, key=lambda it: (it.manifest.sequence, it.manifest.taken_ms), default=None)


def count_bytes(listings: Mapping[Source, JournalListing]) -> dict[bytes, int]:
    """Of each segment and snapshot by id: its files on whichever datanode has most of them."""
    sizes: dict[bytes, int] = {}
    for listing in listings.values():
        here: dict[bytes, int] = {}
        for name, length in listing.files:
            file_id = parse_name(name).file_id
            here[file_id] = here.get(file_id, 0) + length
        for file_id, size in here.items():
            sizes[file_id] = max(sizes.get(file_id, 0), size)
    return sizes


def find_holders(stock: Stock, numbers: Mapping[Source, int]) -> dict[bytes, frozenset[int]]:
    """Of each segment, and of each snapshot with a manifest, the nodes that have all of it. numbers: of the sources."""
    holders = {
        segment_id: frozenset(numbers[replica.source] for replica in it.replicas)
        for segment_id, it in stock.segments.items()
    }
    for snapshot_id, snapshot in stock.snapshots.items():
        parts = [snapshot.replicas, *(snapshot.pieces.get(number, ()) for number in range(snapshot.manifest.pieces))]
        held = [frozenset(numbers[replica.source] for replica in part) for part in parts]
        holders[snapshot_id] = frozenset.intersection(*held)
    return holders
