"""The pool of datanode clients: who is asked in which order, and how it follows the map."""

from __future__ import annotations

import pytest

from cluster.nodes import FAILURE_MEMORY_S, NodePool
from cluster.placer import Placer
from storage.base.clock import ManualClock
from storage.base.errors import NodeUnreachable, NotEnoughNodes
from storage.base.ids import ChunkId
from storage.base.internal_auth import ROLE_DATANODE, derive_node_key, verify_pull_ticket
from storage.chunks.store import ChunkReceipt
from storage.datanode.wire import PullRequest
from storage.model import ClusterMap, Node, NodeReport, NodeState

KEY = b"k" * 32
CHUNK = ChunkId(bytes(16), 7)


class Client:
    """Remembers what it was asked."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.closed = False
        self.pulled: list[tuple[ChunkId, PullRequest]] = []

    async def pull(self, chunk_id: ChunkId, request: PullRequest) -> ChunkReceipt:
        self.pulled.append((chunk_id, request))
        return ChunkReceipt(request.length, request.digest)

    async def close(self) -> None:
        self.closed = True


def node(number: int, address: str = "", state: NodeState = NodeState.UP, domain: str = "") -> Node:
    """A registry record."""
    report = NodeReport(f"{number:032x}", "c", address or f"unix:/{number}", domain or f"z/h{number}/d", 100, 50, 10, 1)
    return Node(number, report, state, 0)


async def pool_of(*nodes: Node) -> tuple[NodePool, ManualClock]:
    """A pool that knows these."""
    clock = ManualClock()
    pool = NodePool(KEY, clock, Client)  # type: ignore[arg-type]
    await pool.adopt(ClusterMap(1, nodes))
    return pool, clock


async def test_one_client_a_node() -> None:
    """Made when first asked for; an unknown number is unreachable."""
    pool, _ = await pool_of(node(1))
    assert pool.store(1) is pool.store(1)
    assert pool.knows(1)
    assert not pool.knows(2)
    with pytest.raises(NodeUnreachable):
        pool.store(2)
    with pytest.raises(NodeUnreachable):
        await pool.pull(1, 2, CHUNK, ChunkReceipt(1, bytes(8)))


async def test_a_node_that_moved_gets_a_new_client() -> None:
    """The old one is closed with the map after, so that calls under way can end."""
    pool, _ = await pool_of(node(1), node(2))
    old: Client = pool.store(1)  # type: ignore[assignment]
    same = pool.store(2)
    await pool.adopt(ClusterMap(2, (node(1, "unix:/elsewhere"), node(2))))
    assert pool.store(1) is not old
    assert pool.store(2) is same
    assert not old.closed
    await pool.adopt(ClusterMap(3, (node(2),)))
    assert old.closed
    with pytest.raises(NodeUnreachable):
        pool.store(1)
    await pool.close()
    assert same.closed  # type: ignore[attr-defined]


async def test_reads_spread() -> None:
    """Every replica is first about as often as the others, in no order that a reader could fall in step with; all of
    them are named."""
    pool, _ = await pool_of(node(1), node(2), node(3))
    orders = [tuple(pool.order_for_read([1, 2, 3])) for _ in range(600)]
    assert {tuple(sorted(order)) for order in orders} == {(1, 2, 3)}
    assert all(orders.count(order) > 100 for order in ((1, 2, 3), (2, 3, 1), (3, 1, 2)))
    firsts = {(orders[at][0], orders[at + 2][0]) for at in range(0, 600, 3)}
    assert len(firsts) == 9
    assert pool.order_for_read([2]) == [2]


async def test_who_failed_is_last_for_a_while() -> None:
    """Until it works again, or until it is forgotten."""
    pool, clock = await pool_of(node(1), node(2), node(3))
    pool.note_failure(2)
    assert all(pool.order_for_read([1, 2, 3])[-1] == 2 for _ in range(6))
    assert pool.is_doubtful(2)
    assert not pool.is_doubtful(3)
    assert pool.failed_numbers() == {2}
    pool.note_success(2)
    assert not pool.is_doubtful(2)
    pool.note_failure(2)
    clock.advance(FAILURE_MEMORY_S)
    assert not pool.is_doubtful(2)
    assert pool.failed_numbers() == frozenset()


async def test_who_is_away_is_asked_last() -> None:
    """Until the master says otherwise; the nodes that are left are in no order."""
    pool, clock = await pool_of(node(1), node(2, state=NodeState.DEAD), node(3, state=NodeState.SUSPECT))
    assert all(pool.order_for_read([1, 2, 3])[-1] == 2 for _ in range(6))
    clock.advance(FAILURE_MEMORY_S)
    assert pool.is_doubtful(2)
    assert not pool.has_failed(2)
    await pool.adopt(ClusterMap(2, (node(1), node(2), node(3))))
    assert not any(map(pool.is_doubtful, (1, 2, 3)))


async def test_a_pull_carries_a_ticket_of_the_source() -> None:
    """Made with the source's key, for this chunk, and for minutes only."""
    pool, clock = await pool_of(node(1), node(2))
    await pool.pull(1, 2, CHUNK, ChunkReceipt(5, b"12345678"))
    client: Client = pool.store(1)  # type: ignore[assignment]
    ((chunk_id, request),) = client.pulled
    assert (chunk_id, request.source, request.length, request.digest) == (CHUNK, "unix:/2", 5, b"12345678")
    source_key = derive_node_key(KEY, ROLE_DATANODE, f"{2:032x}")
    assert verify_pull_ticket(source_key, CHUNK, request.ticket, clock.now_ms())
    assert not verify_pull_ticket(source_key, CHUNK, request.ticket, clock.now_ms() + 600_000)
    assert not verify_pull_ticket(derive_node_key(KEY, ROLE_DATANODE, f"{1:032x}"), CHUNK, request.ticket, 0)


async def test_placement_leaves_out_who_failed_while_it_can() -> None:
    """Three of four serve; two of four that cannot keep copies apart are not worth it; all are last resorts."""
    nodes = [node(number, domain=f"z/{'ab'[number // 3]}/d") for number in (1, 2, 3, 4)]
    pool, clock = await pool_of(*nodes)
    placer = Placer(pool)
    placer.adopt(ClusterMap(1, tuple(nodes)))

    def chosen() -> set[int]:
        return {it.number for index in range(40) for it in placer.choose(bytes(16), index, 2).column}

    assert chosen() == {1, 2, 3, 4}
    pool.note_failure(1)
    assert chosen() == {2, 3, 4}
    assert placer.choose(bytes(16), 0, 2).stand_ins()[-1].number == 1
    pool.note_failure(2)
    assert chosen() == {1, 2, 3, 4}, "3 and 4 share a host"
    clock.advance(FAILURE_MEMORY_S)
    assert chosen() == {1, 2, 3, 4}


async def test_placement_follows_the_map() -> None:
    """Nodes that are not up take nothing, and too few are refused."""
    nodes = [node(1), node(2), node(3, state=NodeState.DRAINING)]
    pool, _ = await pool_of(*nodes)
    placer = Placer(pool)
    with pytest.raises(NotEnoughNodes):
        placer.choose(bytes(16), 0, 2)
    placer.adopt(ClusterMap(1, tuple(nodes)))
    assert {it.number for it in placer.choose(bytes(16), 0, 2).column} == {1, 2}
    placer.adopt(ClusterMap(2, tuple(nodes[1:])))
    with pytest.raises(NotEnoughNodes):
        placer.choose(bytes(16), 0, 2)


async def test_placement_is_of_any_width() -> None:
    """Side by side: a width that needs a node which just failed uses it, another one does not."""
    nodes = [node(number) for number in range(1, 7)]
    pool, _ = await pool_of(*nodes)
    placer = Placer(pool)
    placer.adopt(ClusterMap(1, tuple(nodes)))
    pool.note_failure(3)
    for width in (2, 6, 3, 5, 6, 2):
        columns = [placer.choose(bytes(16), index, width).column for index in range(30)]
        assert {len({it.number for it in column}) for column in columns} == {width}
        assert any(it.number == 3 for column in columns for it in column) == (width == 6)
    with pytest.raises(NotEnoughNodes):
        placer.choose(bytes(16), 0, 7)
    assert len(placer.eligible(6)) == 6
