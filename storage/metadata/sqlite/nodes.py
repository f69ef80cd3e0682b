"""Datanodes as the registry recorded them, under one epoch that rises when placements could come out differently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storage.base.errors import Refused
from storage.metadata.commands import RegisterNode, SetNodeClosed, SetNodeState
from storage.metadata.records import decode_report, encode_record
from storage.metadata.rules import stale_placement, stays_closed
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.masters import require_term
from storage.model import ClusterMap, Node, NodeReport, NodeState

_INSERT = "INSERT INTO nodes (node_id, report, state, last_heard_ms) VALUES (?, ?, ?, ?)"
_UPDATE = "UPDATE nodes SET report = ?, state = ?, last_heard_ms = ? WHERE number = ?"
_SELECT = "SELECT number, report, state, is_closed FROM nodes WHERE node_id = ?"
_SELECT_ALL = "SELECT number, report, state, last_heard_ms, is_closed FROM nodes ORDER BY number"
_SELECT_CLOSED = "SELECT number FROM nodes WHERE is_closed = 1"
_SET_STATE = "UPDATE nodes SET state = ?, is_closed = ? WHERE number = ?"
_RAISE_EPOCH = "UPDATE meta SET value = value + 1 WHERE name = 'epoch'"
_SELECT_EPOCH = "SELECT value FROM meta WHERE name = 'epoch'"


def register_node(tx: Transaction, command: RegisterNode) -> Node:
    require_term(tx, command.term)
    report, state = command.report, command.state
    row = tx.execute(_SELECT, (report.node_id,)).fetchone()
    is_closed = False
    if row is None:
        number = tx.execute(_INSERT, (report.node_id, encode_record(report), state.value, tx.now_ms)).lastrowid
        assert number is not None
        tx.execute(_RAISE_EPOCH)
    else:
        number, is_closed = int(row[0]), bool(row[3])
        tx.execute(_UPDATE, (encode_record(report), state.value, tx.now_ms, number))
        if row[2] != state.value or _moved(decode_report(row[1]), report):
            tx.execute(_RAISE_EPOCH)
    return Node(number, report, state, tx.now_ms, is_closed)


def set_node_state(tx: Transaction, command: SetNodeState) -> None:
    number, before, is_closed = _require_node(tx, command.node_id, command.term)
    if before is not command.state:
        is_closed = is_closed and stays_closed(before, command.state)
        tx.execute(_SET_STATE, (command.state.value, int(is_closed), number))
        tx.execute(_RAISE_EPOCH)


def set_node_closed(tx: Transaction, command: SetNodeClosed) -> None:
    number, state, is_closed = _require_node(tx, command.node_id, command.term)
    if is_closed != command.is_closed:
        tx.execute(_SET_STATE, (state.value, int(command.is_closed), number))
        tx.execute(_RAISE_EPOCH)


def require_open_nodes(tx: Transaction, placements: Iterable[Sequence[int]]) -> None:
    """StalePlacement when one of the numbers is of a closed node. One look at an index that is nearly always empty."""
    closed = {row[0] for row in tx.execute(_SELECT_CLOSED).fetchall()}
    if not closed:
        return
    for nodes in placements:
        for number in nodes:
            if number in closed:
                raise stale_placement(number)


def cluster_map(execute: Execute) -> ClusterMap:
    """One snapshot of the epoch and the nodes."""
    (epoch,) = execute(_SELECT_EPOCH).fetchone()
    nodes = tuple(
        Node(number, decode_report(report), NodeState(state), last_heard_ms, bool(is_closed))
        for number, report, state, last_heard_ms, is_closed in execute(_SELECT_ALL).fetchall()
    )
    return ClusterMap(epoch, nodes)


def _require_node(tx: Transaction, node_id: str, term: int) -> tuple[int, NodeState, bool]:
    """(number, state, whether it is closed). NotActiveMaster; Refused for an unknown one."""
    require_term(tx, term)
    row = tx.execute(_SELECT, (node_id,)).fetchone()
    if row is None:
        raise Refused("no datanode of this id was ever registered")
    return row[0], NodeState(row[2]), bool(row[3])


def _moved(before: NodeReport, after: NodeReport) -> bool:
    return (before.address, before.failure_domain) != (after.address, after.failure_domain)
