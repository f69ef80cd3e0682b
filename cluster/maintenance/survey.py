"""PURE. Compares what rows say with what nodes hold, one window of whole blobs after the other, and adds it up.

A *window* is a run of blobs in the order of their ids. Inventories are merged with rows by the blob: an inventory is in
the order of stored ids, whose index carries the generation of a layout, so that chunks of two layouts of one blob are
not in the order of their rows.

Nothing is decided from a listing alone: pages of an inventory and of rows are not one snapshot. What seems to be
missing is looked at again before it counts (see `needs_second_look`), and whoever repairs or deletes looks for himself.
A piece whose blob has no row at all is none of the survey's business: it may be of a write that is under way.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

from cluster.domains import SurvivableLosses, evaluate_losses
from cluster.maintenance.pieces import length_of, named_pieces, redundancy_of, stored_id_of
from cluster.maintenance.repair import USABLE, Finding, Piece, count_distinct
from storage.base.ids import BLOB_CHUNKS_MAX, ChunkId, split_stored_index
from storage.metadata.interface import ChunkPlace
from storage.model import Node


class SurveySettings(NamedTuple):
    """Seconds."""

    interval_s: float = 600.0
    """between two walks, when nothing else asks for one"""
    surplus_age_s: float = 300.0
    """between the two walks that must both find a surplus piece"""
    read_margin_s: float = 15.0
    """more than the renewal of a session may take on its way"""
    pause_s: float = 0.02
    """between windows, so that a walk never has a node or the metadata to itself"""
    history_s: float = 0.0
    """how long the pieces of an earlier layout are left to the sweep, which keeps them for records of that time"""


class Standing(enum.Enum):
    """What the absence of a piece from a node's listing means."""

    HERE = "here"
    """it was looked through"""
    LEAVING = "leaving"
    """it was looked through, and is being drained"""
    SILENT = "silent"
    """it did not answer"""
    LEFT = "left"
    """it is being drained, and did not answer"""
    DEAD = "dead"
    GONE = "gone"


_PRESENT = {Standing.HERE: Finding.GOOD, Standing.LEAVING: Finding.LEAVING}
_ABSENT = {
    Standing.HERE: Finding.MISSING,
    Standing.LEAVING: Finding.MISSING,
    Standing.SILENT: Finding.UNKNOWN,
    Standing.LEFT: Finding.AWAY,
    Standing.DEAD: Finding.AWAY,
    Standing.GONE: Finding.MISSING,
}


class Listed(NamedTuple):
    """What a node lists in a window: stored id → bytes, of blobs that have rows in it. pieces and total_bytes: of all
    that it lists there."""

    found: Mapping[ChunkId, int]
    pieces: int = 0
    total_bytes: int = 0


class Surplus(NamedTuple):
    """A piece that is there and that the row of its chunk does not name, or under another generation."""

    node: int
    chunk_id: ChunkId
    length: int


class ChunkSurvey(NamedTuple):
    """One chunk. strays: nodes that hold something under its present id without being named."""

    place: ChunkPlace
    pieces: tuple[Piece, ...]
    strays: tuple[int, ...] = ()
    surplus: tuple[Surplus, ...] = ()
    found: tuple[Piece, ...] = ()
    """of the strays: those that were looked at and are good"""


class Health(enum.StrEnum):
    """Of a chunk."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    ENDANGERED = "endangered"
    UNAVAILABLE = "unavailable"
    LOST = "lost"


def compare_window(
    places: Iterable[ChunkPlace], listed: Mapping[int, Listed], standings: Mapping[int, Standing]
) -> list[ChunkSurvey]:
    """Every chunk of the window that is not released. listed: by node, for those that were looked through."""
    by_chunk = {(place.blob_id, place.chunk_index): place for place in places}
    surplus: dict[tuple[bytes, int], list[Surplus]] = {}
    strays: dict[tuple[bytes, int], list[int]] = {}
    for number, listing in listed.items():
        for chunk_id, length in listing.found.items():
            generation, index = split_stored_index(chunk_id.chunk_index)
            place = by_chunk.get((chunk_id.blob_id, index))
            if place is None or (generation == place.generation and number in place.nodes):
                continue
            key = (chunk_id.blob_id, index)
            surplus.setdefault(key, []).append(Surplus(number, chunk_id, length))
            if generation == place.generation:
                strays.setdefault(key, []).append(number)
    return [
        ChunkSurvey(
            place,
            tuple(_find_pieces(place, listed, standings)),
            tuple(strays.get(key, ())),
            tuple(surplus.get(key, ())),
        )
        for key, place in by_chunk.items()
        if not place.is_released
    ]


def _find_pieces(place: ChunkPlace, listed: Mapping[int, Listed], standings: Mapping[int, Standing]) -> Iterable[Piece]:
    chunk_id = stored_id_of(place)
    for position, number in named_pieces(place):
        standing = standings.get(number, Standing.SILENT)
        is_there = number in listed and chunk_id in listed[number].found
        yield Piece(position, number, (_PRESENT if is_there else _ABSENT).get(standing, Finding.UNKNOWN))


def what_absence_means(standing: Standing) -> Finding:
    """Of a piece that a node does not list."""
    return _ABSENT[standing]


def needs_second_look(chunk: ChunkSurvey) -> bool:
    """Whether something seems to be missing that the nodes can be asked for once more: a piece of a node that answers,
    or, where the chunk cannot be read as it stands, pieces that the row does not name."""
    if any(piece.finding is Finding.MISSING for piece in chunk.pieces):
        return True
    return bool(chunk.strays) and count_good(chunk) < redundancy_of(chunk.place).needed


def count_good(chunk: ChunkSurvey) -> int:
    """How many pieces can be read now."""
    return count_distinct(redundancy_of(chunk.place), good_pieces(chunk))


def good_pieces(chunk: ChunkSurvey) -> list[Piece]:
    """Those that are there, on nodes that are drained as well, named or not."""
    return [piece for piece in (*chunk.pieces, *chunk.found) if piece.finding in USABLE]


def judge(chunk: ChunkSurvey) -> Health:
    """What the chunk's pieces make of it."""
    redundancy, good = redundancy_of(chunk.place), count_good(chunk)
    if good >= redundancy.width:
        return Health.HEALTHY
    if good > redundancy.needed:
        return Health.DEGRADED
    if good == redundancy.needed:
        return Health.ENDANGERED
    silent = [piece for piece in chunk.pieces if piece.finding in (Finding.UNKNOWN, Finding.AWAY)]
    possible = [*good_pieces(chunk), *silent]
    return Health.UNAVAILABLE if count_distinct(redundancy, possible) >= redundancy.needed else Health.LOST


def evaluate(chunk: ChunkSurvey, nodes: Mapping[int, Node]) -> SurvivableLosses:
    """What the chunk survives with the pieces that can be read now; negative when it cannot be read."""
    held = sorted(nodes[piece.node].report.failure_domain for piece in good_pieces(chunk) if piece.node in nodes)
    return _evaluate(tuple(held), redundancy_of(chunk.place).needed)


_evaluate = lru_cache(maxsize=65_536)(evaluate_losses)
"""the same sets of nodes hold many chunks"""


def can_be_repaired(chunk: ChunkSurvey, able: Collection[int]) -> bool:
    """Whether there is something that a repair would change. able: the nodes that can take a piece."""
    redundancy = redundancy_of(chunk.place)
    named = {piece.node for piece in chunk.pieces}
    staying = [piece for piece in chunk.pieces if piece.finding in (Finding.GOOD, Finding.UNKNOWN)]
    if chunk.strays and count_distinct(redundancy, staying) < redundancy.width:
        return True
    if count_good(chunk) < redundancy.needed:
        return False
    if any(piece.finding in (Finding.MISSING, Finding.BAD) for piece in chunk.pieces):
        return True
    return len(staying) < redundancy.width and not named.issuperset(able)


def missing_bytes(chunk: ChunkSurvey) -> int:
    """Of the pieces that are to be made, about."""
    redundancy = redundancy_of(chunk.place)
    staying = sum(piece.finding in (Finding.GOOD, Finding.UNKNOWN) for piece in chunk.pieces)
    return max(0, redundancy.width - staying) * length_of(chunk.place, 0)


def end_of_blob(blob_id: bytes) -> tuple[bytes, int]:
    """The key behind the last row of a blob, to go on from."""
    return blob_id, BLOB_CHUNKS_MAX


def cut_to_whole_blobs(places: list[ChunkPlace]) -> list[ChunkPlace]:
    """Without the last blob, of which there may be more rows; as they are when there is no other."""
    last = places[-1].blob_id
    whole = [place for place in places if place.blob_id != last]
    return whole or places
