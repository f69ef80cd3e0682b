"""The sweep's planners: whatever the sessions, ages and inventories, nothing that may be in use is planned away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.sweep import (
    SweepSettings,
    choose_forgettable,
    choose_forgettable_sessions,
    choose_orphan_suspects,
    plan_orphans,
    plan_released,
    skip_open_session,
)
from storage.base.ids import ChunkId, chunk_id_from_bytes, make_blob_id, stored_chunk_id
from storage.chunks.store import InventoryEntry
from storage.model import Blob, Chunk, ClusterMap, Node, NodeReport, NodeState, SessionState, WriteSession

SETTINGS = SweepSettings()
SESSION_IDS = [bytes([number]) * 8 for number in range(6)]

sessions_strategy = st.lists(
    st.builds(
        WriteSession,
        session_id=st.sampled_from(SESSION_IDS),
        owner=st.just("worker"),
        state=st.sampled_from(SessionState),
        opened_ms=st.integers(0, 1000),
        renewed_ms=st.integers(0, 10**9),
        oldest_read_ms=st.integers(0, 10**9),
    ),
    max_size=6,
    unique_by=lambda session: session.session_id,
)
chunk_ids = st.builds(
    lambda session_id, counter, index: ChunkId(make_blob_id(session_id, counter), index),
    st.sampled_from(SESSION_IDS),
    st.integers(0, 3),
    st.integers(0, 2),
)
entries_strategy = st.lists(
    st.builds(
        lambda chunk_id, stored_ms: InventoryEntry(chunk_id.to_bytes(), 100, stored_ms),
        chunk_ids,
        st.integers(0, 10**9),
    ),
    max_size=20,
)


def node(number: int, state: NodeState = NodeState.UP) -> Node:
    """A registry record."""
    return Node(number, NodeReport(f"{number:032x}", "c", f"unix:/{number}", "z/h/d", 100, 50, 10, 1), state, 0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 3),
            st.lists(st.sets(st.integers(0, 5), max_size=3), min_size=1, max_size=3),
        ),
        unique_by=lambda it: it[:2],
    ),
    st.dictionaries(st.integers(1, 5), st.sampled_from(NodeState), max_size=5),
    st.sets(st.integers(1, 5)),
)
def test_a_released_blob_is_forgotten_only_when_every_living_node_deleted_it(
    blobs_of: list[tuple[int, int, list[set[int]]]], states: dict[int, NodeState], failed: set[int]
) -> None:
    """Every chunk on every living node is deleted, under the generation of its layout (0 is no node); a failed node
    keeps its blobs and old layouts on record."""
    blobs = [
        Blob(
            make_blob_id(SESSION_IDS[0], counter),
            100,
            "bk",
            1,
            "replica:2",
            tuple(Chunk(index, 0, 1, b"", b"", tuple(sorted(nodes))) for index, nodes in enumerate(chunks)),
            generation=generation,
        )
        for counter, generation, chunks in blobs_of
    ]
    cluster_map = ClusterMap(1, tuple(node(number, state) for number, state in states.items()))
    living = {number for number, state in states.items() if state not in (NodeState.DEAD, NodeState.GONE)}
    plan = plan_released(blobs, cluster_map)
    expected = {
        (number, stored_chunk_id(blob.blob_id, chunk.index, blob.generation))
        for blob in blobs
        for chunk in blob.chunks
        for number in chunk.nodes
        if number in living
    }
    planned = [(number, chunk_id) for number, ids in plan.deletes.items() for chunk_id in ids]
    assert sorted(planned) == sorted(expected)
    gone = choose_forgettable(plan, failed)
    staying = {number for number in living if states[number] is not NodeState.DRAINING}
    for blob in blobs:
        holders = {number for chunk in blob.chunks for number in chunk.nodes} & staying
        assert ((blob.blob_id, blob.generation) in gone) == (not holders & failed)


@given(entries_strategy, sessions_strategy, st.integers(0, 2 * 10**9))
def test_no_chunk_of_an_open_session_and_no_young_one_is_suspected(
    entries: list[InventoryEntry], sessions: list[WriteSession], now_ms: int
) -> None:
    """Chunks of a session that nobody knows must be older than others."""
    by_id = {session.session_id: session for session in sessions}
    suspects = choose_orphan_suspects(entries, by_id, now_ms, SETTINGS)
    for entry in entries:
        session = by_id.get(entry.chunk_id[:8])
        needed = SETTINGS.unknown_age_ms if session is None else SETTINGS.orphan_age_ms
        is_open = session is not None and session.state is SessionState.OPEN
        if is_open or all(now_ms - it.stored_ms < needed for it in entries if it.chunk_id == entry.chunk_id):
            assert chunk_id_from_bytes(entry.chunk_id) not in suspects
        elif now_ms - entry.stored_ms >= needed:
            assert chunk_id_from_bytes(entry.chunk_id) in suspects


@given(
    st.lists(chunk_ids, unique=True),
    st.sets(st.sampled_from([make_blob_id(session, counter) for session in SESSION_IDS for counter in range(4)])),
    st.dictionaries(chunk_ids.map(ChunkId.to_bytes), st.integers(0, 1000)),
    st.integers(0, 2000),
    st.integers(0, 1000),
)
def test_orphans_go_only_after_two_passes(
    suspects: list[ChunkId], known: set[bytes], seen: dict[bytes, int], now_ms: int, apart_ms: int
) -> None:
    """A known blob is never planned; an unknown one is either remembered with its first sight or set aside."""
    plan = plan_orphans(suspects, known, seen, now_ms, apart_ms)
    for chunk_id in suspects:
        raw = chunk_id.to_bytes()
        if chunk_id.blob_id in known:
            assert raw not in plan.seen
            assert chunk_id not in plan.quarantine
        elif raw in seen and now_ms - seen[raw] >= apart_ms:
            assert chunk_id in plan.quarantine
        else:
            assert plan.seen[raw] == seen.get(raw, now_ms)
    assert set(plan.quarantine) <= set(suspects)


@given(st.lists(chunk_ids, min_size=1, unique=True), sessions_strategy)
def test_paging_skips_only_chunks_of_the_open_session(ids: list[ChunkId], sessions: list[WriteSession]) -> None:
    """Whatever page ends where, no chunk of a session that is over is skipped."""
    by_id = {session.session_id: session for session in sessions}
    ordered = sorted(ids, key=ChunkId.to_bytes)
    last = ordered[0]
    after = skip_open_session(InventoryEntry(last.to_bytes(), 1, 0), by_id)
    assert after.to_bytes() >= last.to_bytes()
    for chunk_id in ordered[1:]:
        if chunk_id.to_bytes() <= after.to_bytes():
            assert chunk_id.session_id == last.session_id
            assert by_id[chunk_id.session_id].state is SessionState.OPEN


@given(sessions_strategy, st.sets(st.sampled_from(SESSION_IDS)), st.integers(0, 2 * 10**9))
def test_sessions_are_forgotten_when_long_over_and_empty(
    sessions: list[WriteSession], seen: set[bytes], now_ms: int
) -> None:
    """Never an open one, never one of which a chunk was seen, never a recent one."""
    chosen = choose_forgettable_sessions(sessions, seen, now_ms, SETTINGS)
    for session in sessions:
        old = now_ms - session.renewed_ms >= SETTINGS.orphan_age_ms + SETTINGS.lease_ttl_ms
        forgettable = session.state is not SessionState.OPEN and session.session_id not in seen and old
        assert (session.session_id in chosen) == forgettable
