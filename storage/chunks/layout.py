"""PURE. Where a chunk lies below a datanode's directory.

    chunks/<first 29 digits of the chunk id>.segment        the small chunks of a group: session, blob counter / 4096
    chunks/<first 29 digits of the chunk id>/<chunk id>     the others, each in a file
    quarantine/<chunk id>.<set aside at, ms>                with `.damaged` behind it until the master knows
    tmp/<anything>                                          nothing of worth: emptied at every start
    tmp/<chunk id>.<token>                                  of these, a draft that another process fills
    lock                                                    held by the process that owns the directory

Names sort as chunk ids do at both levels, so an inventory in order needs one directory at a time. What is written at
the same time lies together and no directory grows without bound. (A fan-out by the id's first byte would put all that a
worker ever writes into one directory, because an id begins with the worker's session.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from storage.base.ids import ChunkId, parse_chunk_id

CHUNKS = "chunks"
TEMPORARY = "tmp"
QUARANTINE = "quarantine"
LOCK = "lock"

GROUP_DIGITS = 29
"""16 of the session and all but 3 of the blob counter's 16: 4096 blobs to a directory"""

SEGMENT_SUFFIX = ".segment"

GROUP_NAME = re.compile(r"[0-9a-f]{29}\Z")
SEGMENT_NAME = re.compile(r"[0-9a-f]{29}\.segment\Z")
GROUP_ENTRY_NAME = re.compile(r"[0-9a-f]{29}(\.segment)?\Z")
CHUNK_NAME = re.compile(r"[0-9a-f]{40}\Z")
_QUARANTINE_NAME = re.compile(r"([0-9a-f]{40})\.([0-9]{1,18})(\.damaged)?\Z")


class SetAside(NamedTuple):
    """A chunk in quarantine. is_damaged: because its bytes were wrong, which nobody acknowledged yet."""

    chunk_id: ChunkId
    set_aside_ms: int
    is_damaged: bool = False


def group_name(chunk_name: str) -> str:
    """The group of a chunk, given its id as text (or the name of its segment), and the directory of its files."""
    return chunk_name[:GROUP_DIGITS]


def lent_draft_name(chunk_id: ChunkId, token: str) -> str:
    """The draft that another process fills. token: what that process chose (storage.datanode.near_wire)."""
    return f"{chunk_id}.{token}"


def segment_name(group: str) -> str:
    """The file that its small chunks lie in."""
    return group + SEGMENT_SUFFIX


def quarantine_name(found: SetAside) -> str:
    """The file that it is."""
    return f"{found.chunk_id}.{found.set_aside_ms}{'.damaged' if found.is_damaged else ''}"


def parse_quarantine_name(name: str) -> SetAside | None:
    """The inverse of quarantine_name; None for a name that is none of ours."""
    found = _QUARANTINE_NAME.match(name)
    return SetAside(parse_chunk_id(found[1]), int(found[2]), found[3] is not None) if found else None
