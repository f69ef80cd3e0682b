"""The journal: every group of commands as one record, handed over inside its transaction, before the commit.

A command decides its outcome from itself, the rows and the time that it is applied at, so the groups in order replay to
the same rows. A journal that replicates makes the metadata as durable as the chunks (storage.journal); the local one
replicates nothing, as the write-ahead log of the database is all there is to replay on one disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from storage.base.errors import Corrupt
from storage.metadata.commands import (
    AcquireMasterLease,
    AnyCommand,
    Command,
    ExtendLeases,
    RegisterNode,
    ReleaseMasterLease,
    SetNodeClosed,
    SetNodeState,
)

REGISTRY_COMMANDS = (AcquireMasterLease, ReleaseMasterLease, RegisterNode, SetNodeState, SetNodeClosed)
"""what the master records of itself and of the nodes: no client's data. A journal that finds no datanode to write to
still takes these, or no node could ever join that it could write to"""

_decode = msgspec.msgpack.Decoder(tuple[int, tuple[AnyCommand | ExtendLeases, ...]]).decode
_encode = msgspec.msgpack.Encoder().encode


class AppliedGroup(NamedTuple):
    """One durable transaction. entries: each command in order, and whether it was applied (False: refused, no trace).

    A large DeleteVersions appears as several, each with the targets that its transaction took.
    """

    applied_at_ms: int
    entries: tuple[tuple[Command, bool], ...]


class Journal(Protocol):
    """Whoever makes groups durable beyond the database's own log. `append` is called on the writer's thread, one group
    at a time; `refusal` on the event loop."""

    def append(self, execute: Callable[..., Any], group: AppliedGroup) -> bool:
        """Called inside the group's transaction, with the execute of its connection, right before the commit; not for
        a group of which nothing was applied. → whether the group is durable elsewhere now: then its outcome is
        unknown if the commit fails.

        Unavailable rolls the group back and is what its callers are told, with the details outcome=`unknown` where the
        group may have reached another disk. Anything else ends the owner."""
        ...

    def refusal(self, command: Command) -> str:
        """Why the journal takes no such command now; empty when it does."""
        ...


def encode_group(group: AppliedGroup) -> bytes:
    """What was applied of a group, and when: msgpack of [applied_at_ms, [command, …]]."""
    return _encode((group.applied_at_ms, [command for command, applied in group.entries if applied]))


def decode_group(record: bytes) -> AppliedGroup:
    """The inverse. Corrupt for what is none."""
    try:
        applied_at_ms, commands = _decode(record)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Corrupt(f"not a group of commands: {error}") from error
    return AppliedGroup(applied_at_ms, tuple((command, True) for command in commands))
