"""How long a gateway waits for each hop to a datanode or to the metadata before it goes on without it. PURE."""

from __future__ import annotations

from typing import NamedTuple


class Deadlines(NamedTuple):
    """Seconds. Each counts from the last progress of its hop, so that a large chunk is not late for being large, and
    only while the hop is to blame: never while a client makes everybody wait."""

    begin_s: float = 5.0
    """a datanode takes a connection and the first block"""
    stall_s: float = 10.0
    """a datanode takes the next block"""
    durable_s: float = 30.0
    """a datanode that has the whole chunk says that it is durable"""
    pull_s: float = 60.0
    """a datanode copies a whole chunk from another one"""
    first_byte_s: float = 5.0
    """a datanode that was asked for bytes sends the first of them"""
    read_stall_s: float = 10.0
    """… and the next"""
    clean_up_s: float = 10.0
    """a datanode deletes what a failed write left"""
    metadata_s: float = 15.0
    """the metadata answers a read or a commit"""
    stripe_s: float = 15.0
    """a client sends the rest of a stripe whose memory others wait for"""
