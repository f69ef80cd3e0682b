"""The configuration sequence: one number that rises with every change of users, access keys, buckets and settings.

Its row is the first thing that a change of configuration takes, so that such changes run one after the other and each
finds what the one before left. Object writes do not touch it, and reads read along.
"""

from __future__ import annotations

from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.pool import Connection

_RAISE = "UPDATE meta SET value = value + 1 WHERE name = 'configuration_sequence'"
_SELECT = "SELECT value FROM meta WHERE name = 'configuration_sequence'"


async def raise_configuration_sequence(connection: Connection) -> None:
    """In the transaction of the change itself, and before it looks at anything; a refusal takes it back."""
    await connection.execute(_RAISE)


async def configuration_sequence(database: Database) -> int:
    """Rises with every change."""
    ((sequence,),) = await database.read(_SELECT)
    return int(sequence)
