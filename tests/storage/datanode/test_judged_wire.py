"""Orders to set aside what was judged: their shape, and a datanode that does not know them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.clock import ManualClock
from storage.base.internal_auth import access_token
from storage.chunks.memory import MemoryChunkStore
from storage.chunks.store import ChunkState, Judged
from storage.datanode import judged_wire, wire
from storage.datanode.app import DatanodeApp
from storage.datanode.client import DatanodeClient
from storage.datanode.peers import Peers
from tests.storage.base.serving import serving
from tests.storage.chunks.conformance import chunk_id
from tests.storage.datanode.nodes import NODE_KEY
from tests.storage.datanode.test_wire import CHUNK_IDS, DIGESTS, MOMENTS

STATES = st.builds(ChunkState, st.integers(1, wire.CHUNK_BYTES_MAX), DIGESTS, MOMENTS, MOMENTS)


@given(st.lists(st.tuples(CHUNK_IDS, st.none() | STATES), max_size=20))
def test_what_was_judged_goes_both_ways(judged: list[Judged]) -> None:
    """One for each chunk, none of what could not be read."""
    assert judged_wire.parse_judged(judged_wire.encode_judged(judged)) == judged


def test_what_is_no_order_is_refused() -> None:
    """A list of ids, as BATCH_QUARANTINE has; a digest of another length; more than a batch."""
    some = wire.parse_chunk_ids(wire.encode([bytes(20)]))[0]
    for body in (
        wire.encode_chunk_ids([some]),
        judged_wire.encode_judged([(some, ChunkState(1, b"short", 0, 0))]),
        judged_wire.encode_judged([(some, None)] * (wire.BATCH_ITEMS_MAX + 1)),
    ):
        with pytest.raises(ValueError, match=r"not a body|a digest"):
            judged_wire.parse_judged(body)


async def test_a_datanode_of_before_sets_aside_what_is_there(tmp_path: Path) -> None:
    """It has no such target, and is told the ids: its bad pieces must not stay until it is upgraded."""
    store = MemoryChunkStore()
    await store.put_many([(chunk_id(n), b"x") for n in range(2)])
    app = DatanodeApp(store, NODE_KEY, ManualClock(), Peers())
    del app._handlers["POST", judged_wire.BATCH_QUARANTINE_JUDGED]
    async with serving(app, f"unix:{tmp_path / 's'}") as address:
        client = DatanodeClient(address, access_token(NODE_KEY))
        assert await client.quarantine_judged([(chunk_id(1), None), (chunk_id(7), None)]) == [True, False]
        assert list(store.chunks) == [chunk_id(0)]
        await client.close()
