"""PURE. What the sweeper may delete, decided from facts that others fetched.

*Released* blobs (their last version was deleted in a known transaction), and layouts that a blob had before, go as soon
as no running read can still hold them. *Orphans* (chunks found in an inventory that no row knows) are left by writes
that died: they go only when their write session can never commit again, were seen in two passes some time apart, and
are old enough; and then into a quarantine first. A chunk of an open session is never an orphan, whatever its age: its
commit may be under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from storage.base.ids import (
    BLOB_ID_BYTES,
    CHUNK_INDEX_MAX,
    SESSION_ID_BYTES,
    ChunkId,
    chunk_id_from_bytes,
    stored_chunk_id,
)
from storage.chunks.store import InventoryEntry
from storage.model import Blob, ClusterMap, NodeState, SessionState, WriteSession


class SweepSettings(NamedTuple):
    """Ages and margins, in milliseconds."""

    lease_ttl_ms: int = 30_000
    """a session that was not renewed for this long is fenced"""
    read_margin_ms: int = 15_000
    """more than a renewal may take on its way"""
    orphan_age_ms: int = 3_600_000
    """the youngest orphan of a session that is fenced or closed"""
    unknown_age_ms: int = 24 * 3_600_000
    """the youngest orphan of a session that the metadata does not know (a restored older copy of it, perhaps)"""
    passes_apart_ms: int = 10_000
    """between the two passes that must both find an orphan"""
    quarantine_ms: int = 24 * 3_600_000
    """how long what was set aside can still be brought back by hand"""
    history_ms: int = 0
    """how long the chunks of what was deleted are kept for the records of an earlier moment (`recover --at`)"""


class ReleasedPlan(NamedTuple):
    """What to delete where, and which layouts can be forgotten once all of their deletes went through."""

    deletes: dict[int, list[ChunkId]]
    """by node number"""
    layouts: dict[tuple[bytes, int], frozenset[int]]
    """(blob id, generation) → the nodes that must have answered before it is forgotten"""


class OrphanPlan(NamedTuple):
    """quarantine: found again, long enough after the first time. seen: first sights to remember until the next pass."""

    quarantine: list[ChunkId]
    seen: dict[bytes, int]


def plan_released(blobs: Iterable[Blob], cluster_map: ClusterMap) -> ReleasedPlan:
    """Deletes for released blobs and old layouts. Nodes that are dead, gone or being drained are not waited for: what
    they still hold when they come back is an orphan, or the surplus of a blob that lives on in another layout. (A
    draining node may be silent for as long as it likes, and what waits is ahead of everything that was released later.)
    """
    reachable = {node.number for node in cluster_map.nodes if node.state not in (NodeState.DEAD, NodeState.GONE)}
    leaving = {node.number for node in cluster_map.nodes if node.state is NodeState.DRAINING}
    deletes: defaultdict[int, list[ChunkId]] = defaultdict(list)
    layouts: dict[tuple[bytes, int], frozenset[int]] = {}
    for blob in blobs:
        needed: set[int] = set()
        for chunk in blob.chunks:
            holders = reachable.intersection(chunk.nodes)
            needed |= holders - leaving
            for number in holders:
                deletes[number].append(stored_chunk_id(blob.blob_id, chunk.index, blob.generation))
        layouts[blob.blob_id, blob.generation] = frozenset(needed)
    return ReleasedPlan(dict(deletes), layouts)


def choose_forgettable(plan: ReleasedPlan, failed_nodes: Iterable[int]) -> list[tuple[bytes, int]]:
    """(blob id, generation) of which every delete went through."""
    failed = set(failed_nodes)
    return [layout for layout, needed in plan.layouts.items() if not needed & failed]


def choose_orphan_suspects(
    entries: Iterable[InventoryEntry], sessions: Mapping[bytes, WriteSession], now_ms: int, settings: SweepSettings
) -> list[ChunkId]:
    """Entries that are orphans if no row knows their blob: their session cannot commit, and they are old enough."""
    suspects: list[ChunkId] = []
    for entry in entries:
        session = sessions.get(entry.chunk_id[:SESSION_ID_BYTES])
        if session is not None and session.state is SessionState.OPEN:
            continue
        age_ms_min = settings.unknown_age_ms if session is None else settings.orphan_age_ms
        if now_ms - entry.stored_ms >= age_ms_min:
            suspects.append(chunk_id_from_bytes(entry.chunk_id))
    return suspects


def plan_orphans(
    suspects: Iterable[ChunkId], known_blobs: set[bytes], seen: Mapping[bytes, int], now_ms: int, passes_apart_ms: int
) -> OrphanPlan:
    """Of one node's suspects: what to set aside now, and what was seen for the first time or not long enough ago.

    known_blobs: blob ids that have a row. seen: chunk id → when an earlier pass saw it unreferenced on this node.
    """
    plan = OrphanPlan([], {})
    for chunk_id in suspects:
        if chunk_id.blob_id in known_blobs:
            continue
        raw = chunk_id.to_bytes()
        first_ms = seen.get(raw)
        if first_ms is not None and now_ms - first_ms >= passes_apart_ms:
            plan.quarantine.append(chunk_id)
        else:
            plan.seen[raw] = now_ms if first_ms is None else first_ms
    return plan


def skip_open_session(last: InventoryEntry, sessions: Mapping[bytes, WriteSession]) -> ChunkId:
    """Where the next inventory page begins: after the last entry, or after all of its session where that is open
    (ids are ordered by session, so that its live chunks need not be listed)."""
    session_id = last.chunk_id[:SESSION_ID_BYTES]
    session = sessions.get(session_id)
    if session is not None and session.state is SessionState.OPEN:
        return ChunkId(session_id + b"\xff" * (BLOB_ID_BYTES - SESSION_ID_BYTES), CHUNK_INDEX_MAX)
    return chunk_id_from_bytes(last.chunk_id)


def choose_forgettable_sessions(
    sessions: Iterable[WriteSession], seen_sessions: set[bytes], now_ms: int, settings: SweepSettings
) -> tuple[bytes, ...]:
    """After a pass over every node: sessions that are long over and of which no node holds a chunk."""
    return tuple(
        session.session_id
        for session in sessions
        if session.state is not SessionState.OPEN
        and session.session_id not in seen_sessions
        and now_ms - session.renewed_ms >= settings.orphan_age_ms + settings.lease_ttl_ms
    )
