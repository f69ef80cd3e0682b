"""Forward migrations. A database carries its version; a newer one is refused with one line.

Functions are a part of the schema. One whose parameters or meaning change gets a new name in a later migration, so that
gateways of the release before go on while a rolling upgrade runs; a released migration is never edited. What must hold
for those gateways too (the time of a release, that nothing locked is deleted) replaces the function that they call.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.base.errors import FrostbyteError
from storage.metadata.postgresql import (
    blobs,
    changes,
    commits,
    deletes,
    layouts,
    listing,
    masters,
    nodes,
    objects,
    sessions,
    uploads,
    version_1,
    version_listing,
    versions,
)
from storage.metadata.postgresql.pool import Connection
from storage.metadata.postgresql.tables import (
    FUNCTIONS_1,
    FUNCTIONS_2,
    TABLES_1,
    TABLES_2,
    TABLES_3,
    TYPES_1,
    TYPES_2,
    TYPES_3,
)

SCHEMA = "frostbyte"

COPY_MARK = "copy_unfinished"
"""a name in meta while a copy from another engine fills the database"""

MOVED_MARK = "moved"
"""a name in meta once the records were moved to another engine"""

_MIGRATION_LOCK = 0x46424D47
# by query, not by to_regclass, which may remember an answer from before the wait for another's migration
_SELECT_META = (
    "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'meta'"
)

_VERSION_1 = (
    *TABLES_1,
    *TYPES_1,
    *FUNCTIONS_1,
    *sessions.FUNCTIONS_1,
    *version_1.INSERT_BLOBS,
    *version_1.RELEASE_UNREFERENCED,
    *blobs.FUNCTIONS_1,
    *version_1.RELEASE_BLOBS,
    *versions.FUNCTIONS_1,
    *version_1.PUT_ON_TOP,
    *version_1.DROP_VERSION,
    *version_1.REMOVE_VERSION,
    *version_1.COMMIT_VERSION,
    *version_1.DELETE_VERSIONS,
    *uploads.FUNCTIONS_1[:4],
    *version_1.COMPLETE_UPLOAD,
    *uploads.FUNCTIONS_1[4:],
    *objects.FUNCTIONS_1,
    *version_1.READ_VERSION,
    *listing.FUNCTIONS_1,
)

_VERSION_2 = (
    *TABLES_2,
    *TYPES_2,
    *FUNCTIONS_2,
    *blobs.FUNCTIONS_2,
    *versions.FUNCTIONS_2,
    *commits.FUNCTIONS_2,
    *deletes.FUNCTIONS_2,
    *changes.FUNCTIONS_2,
    *uploads.FUNCTIONS_2,
    *version_listing.FUNCTIONS_2,
    *masters.TABLES,
    *masters.FUNCTIONS,
)

_VERSION_3 = (
    *TABLES_3,
    *TYPES_3,
    *nodes.FUNCTIONS_3,
    *masters.FUNCTIONS_3,
    *sessions.FUNCTIONS_3,
    *blobs.FUNCTIONS_3,
    *layouts.FUNCTIONS_3,
    *objects.FUNCTIONS_3,
)

Migrations = Sequence[Sequence[str]]

MIGRATIONS: Migrations = (_VERSION_1, _VERSION_2, _VERSION_3)
"""statements that lead from version n to n + 1, at index n; a released one is never edited"""


async def read_schema_version(connection: Connection) -> int:
    """0 for a database without our tables."""
    if await connection.fetchval(_SELECT_META, SCHEMA) is None:
        return 0
    version: int = await connection.fetchval(f"SELECT value FROM {SCHEMA}.meta WHERE name = 'schema_version'")
    return version


def require_known_version(version: int, migrations: Migrations = MIGRATIONS) -> None:
    """FrostbyteError, in one line, for a database that a later Frostbyte wrote."""
    if version > len(migrations):
        raise FrostbyteError(
            f"the database has schema version {version}, this Frostbyte knows up to {len(migrations)}: "
            "start the newer Frostbyte again"
        )


async def require_no_unfinished_copy(connection: Connection) -> None:
    """FrostbyteError for a database that does not hold all of a store yet, or no longer."""
    mark = await connection.fetchval(
        f"SELECT name FROM {SCHEMA}.meta WHERE name IN ($1, $2) ORDER BY name LIMIT 1", COPY_MARK, MOVED_MARK
    )
    if mark == COPY_MARK:
        raise FrostbyteError("a copy into this database was not finished: run it again to its end")
    if mark == MOVED_MARK:
        raise FrostbyteError(
            "the records in this database were moved to another engine and are no longer used: this role's file is of"
            " before that, take the one that the last start wrote"
        )


async def migrate(connection: Connection, migrations: Migrations = MIGRATIONS) -> int:
    """Bring the database forward, each step one transaction: a crash leaves a whole version. → the version now.

    Several processes may do it at once: one does, the others wait and find it done.
    """
    version = await read_schema_version(connection)
    require_known_version(version, migrations)
    while version < len(migrations):
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _MIGRATION_LOCK)
            version = await read_schema_version(connection)
            if version < len(migrations):
                await _run_step(connection, migrations[version], version + 1)
                version += 1
    return version


async def _run_step(connection: Connection, statements: Sequence[str], version: int) -> None:
    if version == 1:
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
    if statements:
        await connection.execute(";\n".join(statements))
    await connection.execute("UPDATE meta SET value = $1 WHERE name = 'schema_version'", version)
