"""Datanodes as the registry recorded them, under one epoch that rises when placements could come out differently."""

from __future__ import annotations

from storage.base.errors import Refused
from storage.metadata.commands import RegisterNode, SetNodeState
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.masters import enter_registry
from storage.metadata.postgresql.pool import Connection
from storage.metadata.records import decode_report, encode_record
from storage.model import ClusterMap, Node, NodeReport, NodeState

_INSERT = (
    "INSERT INTO nodes (node_id, report, state, last_heard_ms) VALUES ($1, $2, $3, coalesce($4::bigint, now_ms()))"
    " RETURNING number, last_heard_ms"
)
_UPDATE = (
    "UPDATE nodes SET report = $2, state = $3, last_heard_ms = coalesce($4::bigint, now_ms()) WHERE node_id = $1"
    " RETURNING number, last_heard_ms"
)
_SELECT = "SELECT report, state FROM nodes WHERE node_id = $1"
_SELECT_MAP = (
    "SELECT m.value, n.number, n.report, n.state, n.last_heard_ms FROM meta m LEFT JOIN nodes n ON true"
    " WHERE m.name = 'epoch' ORDER BY n.number"
)
_SET_STATE = "UPDATE nodes SET state = $2 WHERE node_id = $1"
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
        return Node(recorded[0], report, state, recorded[1])

    return await database.transact(register)


async def set_node_state(database: Database, command: SetNodeState) -> None:
    """See the command."""

    async def put(connection: Connection) -> None:
        await enter_registry(connection, command.term)
        known = await connection.fetchrow(_SELECT, command.node_id)
        if known is None:
            raise Refused("no datanode of this id was ever registered")
        if known[1] != command.state.value:
            await connection.execute(_SET_STATE, command.node_id, command.state.value)
            await connection.execute(_RAISE_EPOCH)

    await database.transact(put)


async def cluster_map(database: Database) -> ClusterMap:
    """The epoch and the nodes in one statement."""
    rows = await database.read(_SELECT_MAP)
    nodes = tuple(
        Node(number, decode_report(report), NodeState(state), last_heard_ms)
        for _, number, report, state, last_heard_ms in rows
        if number is not None
    )
    return ClusterMap(rows[0][0], nodes)


def _moved(before: NodeReport, after: NodeReport) -> bool:
    return (before.address, before.failure_domain) != (after.address, after.failure_domain)
