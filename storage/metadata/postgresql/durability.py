"""What an acknowledged write survives in this database, as its settings say. PURE."""

from __future__ import annotations

from typing import NamedTuple


class Durability(NamedTuple):
    """As found when the database was opened."""

    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    synchronous_standby_names: str
    synchronous_standbys: int | None
    """standbys that commits wait for right now; None when this user may not see them"""

    @property
    def has_loss_window(self) -> bool:
        """Whether the loss of the primary's machine can take acknowledged writes along."""
        return bool(self.problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each thing that an acknowledged write does not survive."""
        found = []
        if not self.fsync:
            found.append("fsync is off: a power cut or a crash of the machine can destroy the database")
        elif not self.full_page_writes:
            found.append("full_page_writes is off: a power cut can damage the database")
        if self.synchronous_commit == "off":
            found.append("synchronous_commit is off: a crash loses the writes of up to the last second")
        if not self.synchronous_standby_names or self.synchronous_commit in ("off", "local"):
            found.append("no synchronous standby: a failover loses the writes that the standby had not received")
        elif self.synchronous_standbys == 0:
            found.append("no synchronous standby is connected: writes wait until there is one")
        return tuple(found)

    @property
    def statement(self) -> str:
        """One line for a person."""
        if self.problems:
            return "; ".join(self.problems)
        return "acknowledged writes are on the disks of the primary and of a synchronous standby"
