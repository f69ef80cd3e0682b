"""PURE. What the survey knows of the cluster's health, as GET /v1/survey shows it (JSON).

Figures of chunks and nodes are those of the last whole walk; the queue, what was repaired and how far the walk under
way is are of the moment. Everything is of one active master: after a takeover it begins with nothing.
"""

from __future__ import annotations

import msgspec

AFFECTED_NAMES_MAX = 1_000


class NodeHoldings(msgspec.Struct, frozen=True):
    """What rows say is on a node, and what is there. Bytes are of sealed pieces."""

    number: int
    node_id: str
    state: str
    named_pieces: int = 0
    """by rows of what is not released"""
    named_bytes: int = 0
    listed_pieces: int = 0
    """in its inventory, with what no row knows yet or any more; 0 when it was not looked through"""
    listed_bytes: int = 0
    missing_pieces: int = 0
    """named, and not there although the node answers"""
    surplus_pieces: int = 0
    """there, and named by no row of their chunk"""
    surplus_bytes: int = 0
    last_pieces: int = 0
    """chunks that can be read with this node's piece only"""
    was_silent: bool = False
    """it did not answer during the walk, or is dead"""


class DrainProgress(msgspec.Struct, frozen=True):
    """A node that is being emptied. pieces_left counts down as they are moved; bytes_left is estimated by it."""

    number: int
    node_id: str
    pieces_left: int
    bytes_left: int
    is_closed: bool
    """no write can name it any more; one more whole walk has to find it empty"""
    is_safe: bool
    """nothing names it and nothing will: it may be switched off"""


class AffectedObject(msgspec.Struct, frozen=True):
    """An object, or a part of an open upload (upload_id), of which a chunk is lost or unavailable."""

    state: str
    """`lost`: every node that might have it was asked; `unavailable`: a node that does not answer may have it"""
    bucket: str
    object_key: str
    """what is no UTF-8 is escaped with backslashes"""
    version_id: str
    upload_id: str = ""


class SurveyStatus(msgspec.Struct, frozen=True):
    """Times are milliseconds since the epoch, 0 for never."""

    walks: int = 0
    """whole walks of this master"""
    walk_started_ms: int = 0
    """of the last whole walk"""
    walk_ended_ms: int = 0
    is_walking: bool = False
    chunks_walked: int = 0
    """of the walk under way"""
    chunks: int = 0
    """that datanodes keep and that something references"""
    bytes: int = 0
    """of plaintext in them"""
    healthy: int = 0
    """every piece is on a node that is there to stay"""
    degraded: int = 0
    """fewer, and more losses are survived"""
    endangered: int = 0
    """fewer, and not one more loss is survived"""
    unavailable: int = 0
    """too few to be read, but silent nodes may have enough"""
    lost: int = 0
    """too few to be read, and every node that might have more was asked"""
    losses: dict[str, dict[int, int]] = {}
    """`zones`, `hosts`, `disks`, `nodes` → how many of them can be lost → chunks that survive that and no more"""
    missing_pieces: int = 0
    damaged_pieces: int = 0
    """set aside by the nodes' scrubs, and not made good yet"""
    surplus_pieces: int = 0
    surplus_bytes: int = 0
    queued: int = 0
    """chunks that wait for their repair"""
    queued_bytes: int = 0
    """of the pieces to be made for them"""
    repairing: int = 0
    """under way now"""
    repaired_pieces: int = 0
    """made and named by this master"""
    repaired_bytes: int = 0
    failed_repairs: int = 0
    """that ended without a full set of pieces; each is tried again"""
    removed_surplus_pieces: int = 0
    silent_nodes: tuple[int, ...] = ()
    """numbers of those that were not looked through"""
    nodes: tuple[NodeHoldings, ...] = ()
    drains: tuple[DrainProgress, ...] = ()
    affected: tuple[AffectedObject, ...] = ()
    """by name, at most AFFECTED_NAMES_MAX"""
    affected_chunks_unnamed: int = 0
    """lost or unavailable chunks beyond those that the names were looked up for"""
