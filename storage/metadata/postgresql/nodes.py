"""Datanodes as the registry recorded them, under one epoch that rises when placements could come out differently.

What records chunks holds a shared advisory lock on placements from before it looks at which nodes are closed until its
commit; whoever closes a node takes the exclusive one. So it waits for the writes that were let in, and every later one
finds the node closed. While it waits nobody else gets in: it gives up soon, and is asked for again.
"""

from __future__ import annotations

from storage.base.errors import Refused
from storage.metadata.commands import RegisterNode, SetNodeClosed, SetNodeState
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.masters import enter_registry
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.tables import PLACEMENT_LOCK
from storage.metadata.records import NODE_NUMBER_BYTES, decode_report, encode_record
from storage.metadata.rules import stays_closed
from storage.model import ClusterMap, Node, NodeReport, NodeState

CLOSING_WAIT_MS = 1_000
"""how long closing a node may wait for the writes that were let in"""

FUNCTIONS_3 = (
    # p_nodes: as they are in chunk rows. The look at the nodes is a statement of its own, after the lock is held.
    f"""CREATE FUNCTION require_open_nodes(p_nodes bytea[]) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        v_number bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared({PLACEMENT_LOCK}, 0);
        SELECT n.number INTO v_number FROM nodes n WHERE n.is_closed AND EXISTS (
            SELECT FROM unnest(p_nodes) p(numbers), generate_series(1, length(p.numbers), {NODE_NUMBER_BYTES}) g(at)
            WHERE substr(p.numbers, g.at, {NODE_NUMBER_BYTES}) = int4send(n.number::integer)) LIMIT 1;
        IF FOUND THEN
            PERFORM refuse('StalePlacement', 'a chunk was placed on a node that is closed, as it is being drained',
                jsonb_build_object('node', v_number::text));
        END IF;
    END $$""",
)

_INSERT = (
    "INSERT INTO nodes (node_id, report, state, last_heard_ms) VALUES ($1, $2, $3, coalesce($4::bigint, now_ms()))"
    " RETURNING number, last_heard_ms, is_closed"
)
_UPDATE = (
    "UPDATE nodes SET report = $2, state = $3, last_heard_ms = coalesce($4::bigint, now_ms()) WHERE node_id = $1"
    " RETURNING number, last_heard_ms, is_closed"
)
_SELECT = "SELECT report, state, is_closed FROM nodes WHERE node_id = $1"
_SELECT_MAP = (
    "SELECT m.value, n.number, n.report, n.state, n.last_heard_ms, n.is_closed FROM meta m LEFT JOIN nodes n ON true"
    " WHERE m.name = 'epoch' ORDER BY n.number"
)
_SET_STATE = "UPDATE nodes SET state = $2, is_closed = $3 WHERE node_id = $1"
_BOUND_WAIT = "SELECT set_config('lock_timeout', $1, true)"
_LOCK_PLACEMENTS = f"SELECT pg_advisory_xact_lock({PLACEMENT_LOCK}, 0)"
_RAISE_EPOCH = "UPDATE meta SET value = value + 1 WHERE name = 'epoch'"


async def register_node(database: Database, command: RegisterNode) -> Node:
    """See the command."""
    report, state = command.report, command.state
    row = (report.node_id, encode_record(report), state.value, database.now_ms())

    async def register(connection: Connection) -> Node:
        await enter_registry(connection, command.term)
        known = await connection.fetchrow(_SELECT, report.node_id)
        if known is None or known[1] != state.value or _moved(decode_report(known[0]), report):
            await connection.execute(_RAISE_EPOCH)
        recorded = await connection.fetchrow(_INSERT if known is None else _UPDATE, *row)
        assert recorded is not None
        return Node(recorded[0], report, state, recorded[1], recorded[2])

    return await database.transact(register)


async def set_node_state(database: Database, command: SetNodeState) -> None:
    """See the command."""

    async def put(connection: Connection) -> None:
        state, is_closed = await _enter_node(connection, command.node_id, command.term)
        if state is not command.state:
            is_closed = is_closed and stays_closed(state, command.state)
            await connection.execute(_SET_STATE, command.node_id, command.state.value, is_closed)
            await connection.execute(_RAISE_EPOCH)

    await database.transact(put)


async def set_node_closed(database: Database, command: SetNodeClosed) -> None:
    """See the command. Unavailable when writes that were let in do not end soon."""

    async def put(connection: Connection) -> None:
        if command.is_closed:
            await connection.execute(_BOUND_WAIT, str(CLOSING_WAIT_MS))
            await connection.execute(_LOCK_PLACEMENTS)
        state, is_closed = await _enter_node(connection, command.node_id, command.term)
        if is_closed != command.is_closed:
            await connection.execute(_SET_STATE, command.node_id, state.value, command.is_closed)
            await connection.execute(_RAISE_EPOCH)

    await database.transact(put)


async def cluster_map(database: Database) -> ClusterMap:
    """The epoch and the nodes in one statement."""
    rows = await database.read(_SELECT_MAP)
    nodes = tuple(
        Node(number, decode_report(report), NodeState(state), last_heard_ms, is_closed)
        for _, number, report, state, last_heard_ms, is_closed in rows
        if number is not None
    )
    return ClusterMap(rows[0][0], nodes)


async def _enter_node(connection: Connection, node_id: str, term: int) -> tuple[NodeState, bool]:
    """The beginning of a change of one node. → its state, and whether it is closed. NotActiveMaster; Refused for an
    unknown one."""
    await enter_registry(connection, term)
    known = await connection.fetchrow(_SELECT, node_id)
    if known is None:
        raise Refused("no datanode of this id was ever registered")
    return NodeState(known[1]), known[2]


def _moved(before: NodeReport, after: NodeReport) -> bool:
    return (before.address, before.failure_domain) != (after.address, after.failure_domain)
