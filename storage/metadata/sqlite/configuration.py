"""The configuration sequence: one number that rises with every change of users, access keys, buckets and settings."""

from __future__ import annotations

from storage.metadata.sqlite.database import Execute, Transaction

_RAISE = "UPDATE meta SET value = value + 1 WHERE name = 'configuration_sequence'"
_SELECT = "SELECT value FROM meta WHERE name = 'configuration_sequence'"


def raise_configuration_sequence(tx: Transaction) -> None:
    """In the transaction of the change itself: whoever reads the number sees the change."""
    tx.execute(_RAISE)
    tx.raises_configuration = True


def configuration_sequence(execute: Execute) -> int:
    return int(execute(_SELECT).fetchone()[0])
