"""Bugs of what looks after chunks and nodes: fences, sweeps, repairs, drains, leads. See bugs.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from cluster.maintenance import orphans, piece_copy, repairer, surveyor, sweeper
from cluster.maintenance.read_horizon import ReadHorizon
from cluster.maintenance.repair import Finding, Piece
from cluster.registry import leadership, state
from storage.chunks import memory
from storage.datanode import pull, rebuild, scrubber
from storage.metadata.sqlite import blobs, layouts, masters, nodes, reader
from storage.model import NodeState
from tests.sim.bugs import Bug, change

_plan_repair = repairer.plan_repair
_name_nodes = repairer.name_nodes
_look = ReadHorizon.look


async def _fence_nobody(self: Any) -> list[bytes]:
    return []


def _look_past(self: ReadHorizon, sessions: Any, now_s: float) -> int:
    _look(self, sessions, now_s)
    return 1 << 62


async def _retire_at_once(self: Any, node: Any, walk: Any) -> None:
    if not walk.tally.named_pieces(node.number):
        await self._registry.retire(node.report.node_id)


def _plan_retire_open(_: Any, node_id: str) -> state.Transition:
    return state.Transition(node_id, NodeState.GONE)


def _plan_without_the_silent(redundancy: Any, named: Iterable[Piece], strays: Any, able: Any) -> Any:
    heard = [it._replace(finding=Finding.MISSING) if it.finding is Finding.UNKNOWN else it for it in named]
    return _plan_repair(redundancy, heard, strays, able)


def _name_sorted(redundancy: Any, plan: Any, made: Any) -> tuple[int, ...]:
    return tuple(sorted(_name_nodes(redundancy, plan, made)))


async def _make_unseen(self: Any, expected: Any, target: int, making: Any) -> Any:
    await making
    return expected


class _AnyDigest(bytes):
    """Equal to every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


_rebuild = rebuild.FragmentRebuilder.rebuild


async def _rebuild_unseen(self: Any, chunk_id: Any, request: Any) -> Any:
    return await _rebuild(self, chunk_id, msgspec.structs.replace(request, digest=_AnyDigest(request.digest)))


async def _fetch_unseen(self: Any, source: Any, chunk_id: Any, request: Any) -> Any:
    headers = pull.ticket_header(request.ticket)
    async with source.open("GET", pull.wire.chunk_target(chunk_id), headers=headers) as response:
        async for block in response.content.iter_any():
            yield block


async def _right(self: Any, chunk_id: Any) -> bool:
    return True


async def _none_left_out(self: Any, place: Any, nodes: Any) -> bool:
    return False


async def _never_late(self: Any) -> None:
    return


async def _set_aside_unread(self: Any, number: int, calls: Any, found: list[Any]) -> int:
    flags = await calls.call(number, lambda store: store.quarantine_many(found)) if found else None
    return sum(flags or [])


async def _known_by_nobody(self: Any, blob_ids: Any) -> set[bytes]:
    return set()


_LEADS = {"masters": 2, "faults": ("cut", "pause"), "fault_every_s": 3.0, "load_s": 60.0}
_OVERTAKEN = {
    "masters": 3,
    "faults": ("pause", "lose disk", "stop"),
    "fault_every_s": 1.0,
    "load_s": 120.0,
    "redundancy": "replica:3",
}
_DRAINED = {
    "faults": ("drain",),
    "fault_every_s": 10.0,
    "nodes": 6,
    "clients": 4,
    "redundancy": "replica:2",
    "chunk_bytes": 64 << 10,
    "sizes": (140_000, 250_000),
    "load_s": 80.0,
    "slowness": 0.9,
}
_HURT = {"faults": ("rot", "lose disk", "weather"), "fault_every_s": 2.0, "load_s": 60.0}
_SILENT = {"faults": ("stop", "cut", "rot", "crash"), "fault_every_s": 1.5, "load_s": 60.0, "redundancy": "replica:3"}
_READ_SLOWLY = {
    "clients": 4,
    "pause_s": 0.2,
    "load_s": 60.0,
    "faults": ("slow",),
    "redundancy": "replica:2",
    "chunk_bytes": 64 << 10,
    "sizes": (400_000,),
    "slowness": 0.1,
}

REPAIR_BUGS = (
    Bug(
        "nobody fenced",
        "Sessions of workers that died are never fenced.",
        change((sweeper.Sweeper, "_fence", _fence_nobody)),
        "is still released",
        (1,),
        {"faults": ("crash", "strike"), "fault_every_s": 1.5, "load_s": 50.0},
    ),
    Bug(
        "released chunks go at once",
        "Chunks of a deleted version are deleted while a read still wants them.",
        change((ReadHorizon, "look", _look_past)),
        "no good",
        (1,),
        _READ_SLOWLY,
    ),
    Bug(
        "stale term accepted",
        "What a master that was taken over from still writes is accepted.",
        change((masters, "require_term", lambda tx, term: None), (nodes, "require_term", lambda tx, term: None)),
        "was applied under term",
        (8, 12, 17),
        _OVERTAKEN,
    ),
    Bug(
        "closed nodes take commits",
        "A write that was placed before a node was closed is committed on it.",
        change(
            (blobs, "require_open_nodes", lambda tx, placements: None),
            (layouts, "require_open_nodes", lambda tx, placements: None),
        ),
        "gone for good",
        (2,),
        _DRAINED,
    ),
    Bug(
        "retired without a last look",
        "A node that is drained is let go of while it may still be written to.",
        change(
            (surveyor.Surveyor, "_advance_drain", _retire_at_once),
            (state, "plan_retire", _plan_retire_open),
        ),
        "gone for good",
        (2,),
        _DRAINED,
    ),
    Bug(
        "leads for ever",
        "A master relies on its lease without looking at the clock.",
        change(
            (leadership.Leadership, "is_active", property(lambda self: self._leads)),
            (leadership.Leadership, "_stand_by_if_late", _never_late),
        ),
        "several masters are active",
        (2,),
        _LEADS,
    ),
    Bug(
        "rebuilt fragments not verified",
        "A repair names a fragment that was made of damaged ones.",
        change(
            (rebuild._Source, "check_whole", lambda self: None),
            (rebuild.FragmentRebuilder, "rebuild", _rebuild_unseen),
            (piece_copy.PieceCopier, "_make", _make_unseen),
        ),
        "is named anew",
        (19,),
        {
            **_HURT,
            "faults": ("lose disk", "weather", "weather", "rot"),
            "fault_every_s": 1.0,
            "redundancy": "ec:2+1",
            "sizes": (220_000, 400_000),
            "chunk_bytes": 256 << 10,
            "nodes": 5,
        },
    ),
    Bug(
        "fragments mixed up",
        "After a repair the row names fragments in another order than they have.",
        change((repairer, "name_nodes", _name_sorted)),
        "",
        (1,),
        {**_HURT, "redundancy": "ec:2+1", "sizes": (220_000, 400_000), "chunk_bytes": 256 << 10, "nodes": 5},
    ),
    Bug(
        "silent taken for missing",
        "Pieces on nodes that do not answer are made again at once, and their rows changed.",
        change((repairer, "plan_repair", _plan_without_the_silent)),
        "good pieces on",
        (17,),
        _SILENT,
    ),
    Bug(
        "orphans set aside unread",
        "What an inventory has for long is set aside without a look at the rows.",
        change(
            (orphans.OrphanPasses, "_set_aside", _set_aside_unread),
            (reader.SqliteMetadata, "find_referenced_blobs", _known_by_nobody),
        ),
        "where its row names it",
        (1,),
        {"faults": ("crash",), "load_s": 60.0},
    ),
    Bug(
        "set aside whatever is there",
        "An order to set aside that comes again takes the good piece that was made in the place of the bad one.",
        change((memory.MemoryChunkStore, "_is_still", lambda self, chunk_id, judged: chunk_id in self.chunks)),
        "where its row names it",
        (3, 7),
        {
            "faults": ("weather", "weather", "rot", "drain", "join"),
            "fault_every_s": 1.0,
            "load_s": 80.0,
            "redundancy": "replica:3",
            "nodes": 4,
            "clients": 4,
        },
    ),
    Bug(
        "made good meanwhile and left out",
        "A repair that could not make a piece names it no more, though another one made it good in its place.",
        change((repairer.Repairer, "_leaves_out_a_good_one", _none_left_out)),
        "good pieces on",
        (7,),
        {
            "faults": ("weather", "rot", "rot", "rot", "rot"),
            "fault_every_s": 0.4,
            "load_s": 60.0,
            "redundancy": "replica:3",
            "nodes": 3,
            "zones": 1,
            "gateways": 2,
            "masters": 1,
            "clients": 6,
            "pause_s": 0.1,
            "sizes": (20_000,),
            "slowness": 0.0,
        },
    ),
    Bug(
        "rot overlooked",
        "The scrub reads a damaged chunk and finds nothing wrong.",
        change((scrubber.Scrubber, "_check", _right)),
        "good pieces of",
        (1,),
        {"faults": ("rot",), "redundancy": "replica:3", "clients": 2},
    ),
)
