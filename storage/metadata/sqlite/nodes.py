"""Datanodes as the registry recorded them, under one epoch that rises when placements could come out differently."""

from __future__ import annotations

from storage.base.errors import Refused
from storage.metadata.commands import RegisterNode, SetNodeState
from storage.metadata.records import decode_report, encode_record
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.masters import require_term
from storage.model import ClusterMap, Node, NodeReport, NodeState

_INSERT = "INSERT INTO nodes (node_id, report, state, last_heard_ms) VALUES (?, ?, ?, ?)"
_UPDATE = "UPDATE nodes SET report = ?, state = ?, last_heard_ms = ? WHERE number = ?"
_SELECT = "SELECT number, report, state FROM nodes WHERE node_id = ?"
_SELECT_ALL = "SELECT number, report, state, last_heard_ms FROM nodes ORDER BY number"
_SET_STATE = "UPDATE nodes SET state = ? WHERE number = ?"
_RAISE_EPOCH = "UPDATE meta SET value = value + 1 WHERE name = 'epoch'"
_SELECT_EPOCH = "SELECT value FROM meta WHERE name = 'epoch'"


def register_node(tx: Transaction, command: RegisterNode) -> Node:
    require_term(tx, command.term)
    report, state = command.report, command.state
    row = tx.execute(_SELECT, (report.node_id,)).fetchone()
    if row is None:
        number = tx.execute(_INSERT, (report.node_id, encode_record(report), state.value, tx.now_ms)).lastrowid
        assert number is not None
        tx.execute(_RAISE_EPOCH)
    else:
        number = int(row[0])
        tx.execute(_UPDATE, (encode_record(report), state.value, tx.now_ms, number))
        if row[2] != state.value or _moved(decode_report(row[1]), report):
            tx.execute(_RAISE_EPOCH)
    return Node(number, report, state, tx.now_ms)


def set_node_state(tx: Transaction, command: SetNodeState) -> None:
    require_term(tx, command.term)
    row = tx.execute(_SELECT, (command.node_id,)).fetchone()
    if row is None:
        raise Refused("no datanode of this id was ever registered")
    if row[2] != command.state.value:
        tx.execute(_SET_STATE, (command.state.value, row[0]))
        tx.execute(_RAISE_EPOCH)


def cluster_map(execute: Execute) -> ClusterMap:
    """One snapshot of the epoch and the nodes."""
    (epoch,) = execute(_SELECT_EPOCH).fetchone()
    nodes = tuple(
        Node(number, decode_report(report), NodeState(state), last_heard_ms)
        for number, report, state, last_heard_ms in execute(_SELECT_ALL).fetchall()
    )
    return ClusterMap(epoch, nodes)


def _moved(before: NodeReport, after: NodeReport) -> bool:
    return (before.address, before.failure_domain) != (after.address, after.failure_domain)
