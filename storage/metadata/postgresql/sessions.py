"""Write sessions: open, renewed, fenced, closed. Only an open one can commit, which is checked in each commit.

A commit holds a shared advisory lock on its session until it is over; whoever ends a session takes the exclusive one.
So a fence waits for the commits that were let in, and those that come after it find the session fenced. Row locks would
do the same, but a busy worker's commits would queue up in the lock list of one row.
"""

from __future__ import annotations

from storage.base.errors import SessionFenced
from storage.metadata.commands import CloseSession, FenceSessions, ForgetSessions, OpenSession, RenewSession
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.tables import BUCKET_LOCKS
from storage.model import SessionState, WriteSession

FUNCTIONS_1 = (
    # the beginning of every commit of a session: what it decides by is read after the locks are held
    f"""CREATE FUNCTION enter_bucket(
        p_session_id bytea, p_bucket_id bigint, OUT r_versioning text, OUT r_owner_id text) LANGUAGE plpgsql AS $$
    DECLARE
        v_state text;
    BEGIN
        PERFORM pg_advisory_xact_lock_shared(session_lock(p_session_id)),
            pg_advisory_xact_lock_shared({BUCKET_LOCKS}, bucket_lock(p_bucket_id));
        SELECT b.versioning, b.owner_id, s.state INTO r_versioning, r_owner_id, v_state
        FROM buckets b LEFT JOIN write_sessions s ON s.session_id = p_session_id WHERE b.bucket_id = p_bucket_id;
        IF NOT FOUND THEN
            PERFORM refuse('NoSuchBucket');
        ELSIF v_state IS DISTINCT FROM 'open' THEN
            PERFORM refuse('SessionFenced');
        END IF;
    END $$""",
    """CREATE FUNCTION close_session(p_session_id bytea) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(session_lock(p_session_id));
        UPDATE write_sessions SET state = 'closed' WHERE session_id = p_session_id AND state = 'open';
    END $$""",
    # A server that is new to us answers nobody: while it was away no worker could renew, so its absence fences nobody.
    """CREATE FUNCTION fence_sessions(p_ttl_ms bigint, p_now_ms bigint) RETURNS SETOF bytea LANGUAGE plpgsql AS $$
    DECLARE
        v_now_ms bigint := coalesce(p_now_ms, now_ms());
        v_incarnation bigint := server_incarnation();
    BEGIN
        UPDATE meta SET value = v_incarnation WHERE name = 'server_incarnation' AND value <> v_incarnation;
        IF FOUND THEN
            UPDATE write_sessions SET renewed_ms = greatest(renewed_ms, v_now_ms) WHERE state = 'open';
            RETURN;
        END IF;
        PERFORM pg_advisory_xact_lock(session_lock(s.session_id))
        FROM (SELECT session_id FROM write_sessions WHERE state = 'open' AND renewed_ms < v_now_ms - p_ttl_ms
            ORDER BY session_id) s;
        RETURN QUERY WITH fenced AS (
            UPDATE write_sessions SET state = 'fenced' WHERE state = 'open' AND renewed_ms < v_now_ms - p_ttl_ms
            RETURNING session_id)
        SELECT session_id FROM fenced ORDER BY session_id;
    END $$""",
)

FUNCTIONS_3 = (
    """CREATE FUNCTION fence_sessions_3(p_ttl_ms bigint, p_term bigint, p_now_ms bigint) RETURNS SETOF bytea
    LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM require_term(p_term);
        RETURN QUERY SELECT * FROM fence_sessions(p_ttl_ms, p_now_ms);
    END $$""",
    """CREATE FUNCTION forget_sessions_3(p_session_ids bytea[], p_term bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM require_term(p_term);
        PERFORM forget_sessions(p_session_ids);
    END $$""",
)

_OPEN = (
    "INSERT INTO write_sessions SELECT $1, $2, 'open', t.now, t.now, t.now"
    " FROM (SELECT coalesce($3::bigint, now_ms()) AS now) t ON CONFLICT DO NOTHING RETURNING 1"
)
_RENEW = (
    "UPDATE write_sessions SET renewed_ms = greatest(renewed_ms, t.now),"
    " oldest_read_ms = greatest(oldest_read_ms, t.now - $2)"
    " FROM (SELECT coalesce($3::bigint, now_ms()) AS now) t WHERE session_id = $1 AND state = 'open' RETURNING 1"
)
_CLOSE = "SELECT close_session($1)"
_FENCE = "SELECT fence_sessions_3($1, $2, $3)"
_FORGET = "SELECT forget_sessions_3($1, $2)"
_SELECT_ALL = (
    "SELECT session_id, owner, state, opened_ms, renewed_ms, oldest_read_ms FROM write_sessions ORDER BY session_id"
)


async def open_session(database: Database, command: OpenSession) -> None:
    """SessionFenced for an id that was used before: an incarnation is never resumed."""
    if not await database.write(_OPEN, command.session_id, command.owner, database.now_ms()):
        raise SessionFenced("this session id was used before")


async def renew_session(database: Database, command: RenewSession) -> None:
    """The lease and the age of the oldest read move forward only."""
    if not await database.write(_RENEW, command.session_id, command.oldest_read_age_ms, database.now_ms()):
        raise SessionFenced()


async def close_session(database: Database, command: CloseSession) -> None:
    """Closing what is not open is no error: it cannot commit either way."""
    await database.write(_CLOSE, command.session_id)


async def fence_sessions(database: Database, command: FenceSessions) -> list[bytes]:
    """From this commit on, nothing of the returned sessions can commit."""
    rows = await database.write(_FENCE, command.ttl_ms, command.term, database.now_ms())
    return [row[0] for row in rows]


async def forget_sessions(database: Database, command: ForgetSessions) -> None:
    """Open sessions stay: they may commit at any time."""
    await database.write(_FORGET, list(command.session_ids), command.term)


async def list_sessions(database: Database) -> list[WriteSession]:
    """All of them; one per worker incarnation that was not forgotten."""
    return [
        WriteSession(session_id, owner, SessionState(state), opened_ms, renewed_ms, oldest_read_ms)
        for session_id, owner, state, opened_ms, renewed_ms, oldest_read_ms in await database.read(_SELECT_ALL)
    ]
