"""The lease of the active master, in one row. Its term is the epoch that it was taken at, and fences older ones.

Whoever changes the registry holds the epoch's row and then looks at the term, so that a takeover comes before all of it
or after. A lease is taken or renewed by one call of a function, and a registry's transaction is ended by the server
soon after its master stopped in the middle: neither can keep the next master waiting.
"""

from __future__ import annotations

from storage.base.errors import NotActiveMaster
from storage.metadata.commands import AcquireMasterLease, MasterLease, ReleaseMasterLease
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.pool import Connection

IDLE_IN_REGISTRY_MS = 1_000
"""how long a registry's transaction may wait for its master's next statement"""

TABLES = (
    """CREATE TABLE master_lease (
        row_id integer PRIMARY KEY CHECK (row_id = 1), master_id text NOT NULL, address text NOT NULL,
        term bigint NOT NULL, renewed_ms bigint NOT NULL, ttl_ms bigint NOT NULL) WITH (fillfactor = 25)""",
)

FUNCTIONS = (
    # over: also when the clock was set back by more than the lease, which must not last until it has caught up
    """CREATE FUNCTION acquire_master_lease(
        p_master_id text, p_address text, p_ttl_ms bigint, p_is_successor boolean, p_now_ms bigint)
    RETURNS TABLE (r_master_id text, r_address text, r_term bigint, r_expires_ms bigint) LANGUAGE plpgsql AS $$
    DECLARE
        v_lease master_lease;
        v_now_ms bigint;
        v_term bigint;
    BEGIN
        PERFORM 1 FROM meta WHERE name = 'epoch' FOR UPDATE;
        SELECT * INTO v_lease FROM master_lease;
        v_now_ms := coalesce(p_now_ms, now_ms());
        IF v_lease.master_id = p_master_id THEN
            v_term := v_lease.term;
        ELSIF v_lease.master_id IS NULL OR abs(v_now_ms - v_lease.renewed_ms) >= v_lease.ttl_ms
            OR (p_is_successor AND v_lease.address = p_address) THEN
            UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value INTO v_term;
        ELSE
            RETURN QUERY SELECT v_lease.master_id, v_lease.address, v_lease.term, v_lease.renewed_ms + v_lease.ttl_ms;
            RETURN;
        END IF;
        INSERT INTO master_lease VALUES (1, p_master_id, p_address, v_term, v_now_ms, p_ttl_ms)
        ON CONFLICT (row_id) DO UPDATE SET master_id = excluded.master_id, address = excluded.address,
            term = excluded.term, renewed_ms = excluded.renewed_ms, ttl_ms = excluded.ttl_ms;
        RETURN QUERY SELECT p_master_id, p_address, v_term, v_now_ms + p_ttl_ms;
    END $$""",
)

FUNCTIONS_3 = (
    # Of what is right whoever asks for it, and only needless from a master whose term is over: so the lease is not
    # locked, which would let whatever such a command waits for keep the next master waiting. 0 is not checked.
    """CREATE FUNCTION require_term(p_term bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF p_term <> 0 AND p_term IS DISTINCT FROM (SELECT l.term FROM master_lease l) THEN
            PERFORM refuse('NotActiveMaster', 'another master took over');
        END IF;
    END $$""",
)

_ACQUIRE = "SELECT * FROM acquire_master_lease($1, $2, $3, $4, $5)"
_RELEASE = "UPDATE master_lease SET ttl_ms = 0 WHERE master_id = $1"
_LOCK_EPOCH = (
    f"SELECT set_config('idle_in_transaction_session_timeout', '{IDLE_IN_REGISTRY_MS}', true)"
    " FROM meta WHERE name = 'epoch' FOR UPDATE"
)
# a statement of its own: one that waited for the row would see the lease as it was before
_SELECT_TERM = "SELECT term FROM master_lease"


async def acquire_master_lease(database: Database, command: AcquireMasterLease) -> MasterLease:
    """See the command."""
    (row,) = await database.write(
        _ACQUIRE, command.master_id, command.address, command.ttl_ms, command.is_successor, database.now_ms()
    )
    return MasterLease(*row)


async def release_master_lease(database: Database, command: ReleaseMasterLease) -> None:
    """See the command."""
    await database.write(_RELEASE, command.master_id)


async def enter_registry(connection: Connection, term: int) -> None:
    """The beginning of a transaction that changes nodes: what concerns them happens one after the other.
    NotActiveMaster unless the term is the newest one."""
    await connection.execute(_LOCK_EPOCH)
    if term != (await connection.fetchval(_SELECT_TERM) or 0):
        raise NotActiveMaster("another master took over")
