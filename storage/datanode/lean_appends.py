"""Appends to the journal of the metadata, past the parser: every write to the metadata waits for one on each datanode
of the ensemble."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import partial

from storage.chunks.store import Buffer
from storage.datanode import wire

LEAN_BYTES_MAX = 256 * 1024
"""a larger one goes the ordinary road, which bounds how many large bodies are in memory"""
AT_ONCE_MAX = 16
"""there is one owner, which sends one at a time"""

_TARGET = re.compile(r"(segment-[0-9a-f]{32})\?owner=([0-9a-f]{32})&offset=([0-9]{1,12})\Z")
"""an append to a segment, as journal_wire.change_target spells it"""

Append = Callable[[bytes, str, int, bytes], "asyncio.Future[int]"]
"""as JournalFiles.append, elsewhere"""


class LeanAppends:
    """LeanHandler of a datanode's journal."""

    def __init__(self, append: Append) -> None:
        self.under_way = 0
        self._append = append

    def begin(self, target: str, length: int) -> LeanAppend | None:
        """target: name and query. None for whatever is spelled otherwise than by journal_wire, also what is to be
        refused."""
        found = _TARGET.match(target)
        if found is None or length > LEAN_BYTES_MAX or self.under_way >= AT_ONCE_MAX:
            return None
        name, owner, offset = found.groups()
        return LeanAppend(self, partial(self._append, bytes.fromhex(owner), name, int(offset)))


class LeanAppend:
    """LeanWork of one append."""

    __slots__ = ("_append", "_appends")

    def __init__(self, appends: LeanAppends, append: Callable[[bytes], asyncio.Future[int]]) -> None:
        appends.under_way += 1
        self._appends = appends
        self._append = append

    def start(self, blocks: Sequence[Buffer]) -> asyncio.Future[int]:
        return self._append(b"".join(blocks))

    def encode(self, done: asyncio.Future[int]) -> tuple[int, bytes]:
        return 200, wire.encode(done.result())

    def close(self) -> None:
        self._appends.under_way -= 1
