"""Write sessions: open, renewed, fenced, closed. Only an open one can commit, which is checked in each commit."""

from __future__ import annotations

from storage.base.errors import SessionFenced
from storage.metadata.commands import (
    CloseSession,
    ExtendLeases,
    FenceSessions,
    ForgetSessions,
    OpenSession,
    RenewSession,
)
from storage.metadata.sqlite.database import Execute, Transaction
from storage.metadata.sqlite.masters import require_term_if_any
from storage.model import SessionState, WriteSession

_INSERT = "INSERT INTO write_sessions VALUES (?, ?, 'open', ?3, ?3, ?3) ON CONFLICT DO NOTHING"
_RENEW = (
    "UPDATE write_sessions SET renewed_ms = max(renewed_ms, ?), oldest_read_ms = max(oldest_read_ms, ?)"
    " WHERE session_id = ? AND state = 'open'"
)
_CLOSE = "UPDATE write_sessions SET state = 'closed' WHERE session_id = ? AND state = 'open'"
_SELECT_EXPIRED = "SELECT session_id FROM write_sessions WHERE state = 'open' AND renewed_ms < ? ORDER BY session_id"
_FENCE = "UPDATE write_sessions SET state = 'fenced' WHERE session_id = ?"
_FORGET = "DELETE FROM write_sessions WHERE session_id = ? AND state <> 'open'"
_SELECT_ALL = (
    "SELECT session_id, owner, state, opened_ms, renewed_ms, oldest_read_ms FROM write_sessions ORDER BY session_id"
)
_EXTEND_LEASES = "UPDATE write_sessions SET renewed_ms = max(renewed_ms, ?) WHERE state = 'open'"


def open_session(tx: Transaction, command: OpenSession) -> None:
    """SessionFenced for an id that was used before: an incarnation is never resumed."""
    if tx.execute(_INSERT, (command.session_id, command.owner, tx.now_ms)).rowcount != 1:
        raise SessionFenced("this session id was used before")


def renew_session(tx: Transaction, command: RenewSession) -> None:
    """The lease and the age of the oldest read move forward only."""
    oldest_read_ms = tx.now_ms - command.oldest_read_age_ms
    if tx.execute(_RENEW, (tx.now_ms, oldest_read_ms, command.session_id)).rowcount != 1:
        raise SessionFenced()


def close_session(tx: Transaction, command: CloseSession) -> None:
    """Closing what is not open is no error: it cannot commit either way."""
    tx.execute(_CLOSE, (command.session_id,))


def fence_sessions(tx: Transaction, command: FenceSessions) -> list[bytes]:
    """From this commit on, nothing of the returned sessions can commit."""
    require_term_if_any(tx, command.term)
    expired = [row[0] for row in tx.execute(_SELECT_EXPIRED, (tx.now_ms - command.ttl_ms,)).fetchall()]
    tx.executemany(_FENCE, [(session_id,) for session_id in expired])
    return expired


def forget_sessions(tx: Transaction, command: ForgetSessions) -> None:
    """Open sessions stay: they may commit at any time."""
    require_term_if_any(tx, command.term)
    tx.executemany(_FORGET, [(session_id,) for session_id in command.session_ids])


def extend_leases(execute: Execute, now_ms: int) -> None:
    """While the owner took nothing no worker could renew, so its absence fences nobody."""
    execute(_EXTEND_LEASES, (now_ms,))


def extend_all_leases(tx: Transaction, command: ExtendLeases) -> None:
    extend_leases(tx.execute, tx.now_ms)


def newest_renewal_ms(execute: Execute) -> int:
    """Where an owner's time begins at least: what it records must not seem older than what was recorded before it
    (cluster/maintenance/read_horizon.py), however the machine's clock was set meanwhile."""
    newest_ms: int = execute("SELECT coalesce(max(renewed_ms), 0) FROM write_sessions").fetchone()[0]
    return newest_ms


def list_sessions(execute: Execute) -> list[WriteSession]:
    """All of them; one per worker incarnation that was not forgotten."""
    return [
        WriteSession(session_id, owner, SessionState(state), opened_ms, renewed_ms, oldest_read_ms)
        for session_id, owner, state, opened_ms, renewed_ms, oldest_read_ms in execute(_SELECT_ALL).fetchall()
    ]
