"""The lease of the active master, in one row. Its term is the epoch that it was taken at, and fences older ones."""

from __future__ import annotations

from storage.base.errors import NotActiveMaster
from storage.metadata.commands import AcquireMasterLease, MasterLease, ReleaseMasterLease
from storage.metadata.sqlite.database import Transaction

TABLES = (
    """CREATE TABLE master_lease (
        row_id INTEGER PRIMARY KEY CHECK (row_id = 1), master_id TEXT NOT NULL, address TEXT NOT NULL,
        term INTEGER NOT NULL, renewed_ms INTEGER NOT NULL, ttl_ms INTEGER NOT NULL)""",
)

_SELECT = "SELECT master_id, address, term, renewed_ms, ttl_ms FROM master_lease"
_PUT = "INSERT OR REPLACE INTO master_lease VALUES (1, ?, ?, ?, ?, ?)"
_RELEASE = "UPDATE master_lease SET ttl_ms = 0 WHERE master_id = ?"
_RAISE_EPOCH = "UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value"
_SELECT_TERM = "SELECT term FROM master_lease"


def acquire_master_lease(tx: Transaction, command: AcquireMasterLease) -> MasterLease:
    row = tx.execute(_SELECT).fetchone()
    if row is not None and row[0] == command.master_id:
        term = row[2]
    elif row is None or _is_over(row[3], row[4], tx.now_ms) or _succeeds(command, row[1]):
        term = tx.execute(_RAISE_EPOCH).fetchone()[0]
    else:
        return MasterLease(row[0], row[1], row[2], row[3] + row[4])
    tx.execute(_PUT, (command.master_id, command.address, term, tx.now_ms, command.ttl_ms))
    return MasterLease(command.master_id, command.address, term, tx.now_ms + command.ttl_ms)


def release_master_lease(tx: Transaction, command: ReleaseMasterLease) -> None:
    tx.execute(_RELEASE, (command.master_id,))


def require_term(tx: Transaction, term: int) -> None:
    """NotActiveMaster unless it is the newest one."""
    row = tx.execute(_SELECT_TERM).fetchone()
    if term != (0 if row is None else row[0]):
        raise NotActiveMaster("another master took over")


def require_term_if_any(tx: Transaction, term: int) -> None:
    """Of what gateways, which have no term, and command lines ask for as well: 0 is not checked."""
    if term:
        require_term(tx, term)


def _is_over(renewed_ms: int, ttl_ms: int, now_ms: int) -> bool:
    """Also when the clock was set back by more than the lease: it must not last until the clock has caught up."""
    return abs(now_ms - renewed_ms) >= ttl_ms


def _succeeds(command: AcquireMasterLease, address: str) -> bool:
    return command.is_successor and command.address == address
