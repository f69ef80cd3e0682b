"""PURE. Chunks that wait for their repair: the most endangered first, then those that have waited longest.

Bounded: when it is full the least endangered make way, and `overflowed` says that a walk has to find them again. A
chunk whose repair failed waits, apart from the others, for longer with every attempt.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import NamedTuple

ITEMS_MAX = 100_000
RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0

_Key = tuple[bytes, int]


class RepairItem(NamedTuple):
    """A chunk and what was known of it. losses_left: how many disks can be lost with the chunk still readable; negative
    when it cannot be read now. piece_bytes: of what is to be made. strays: nodes that may hold more of its pieces."""

    blob_id: bytes
    chunk_index: int
    losses_left: int
    piece_bytes: int = 0
    strays: tuple[int, ...] = ()
    attempts: int = 0

    @property
    def key(self) -> _Key:
        """Of the chunk: it is in the queue once."""
        return self.blob_id, self.chunk_index


class RepairQueue:
    """`add`, then `take`, and `done` or `defer` for what was taken."""

    def __init__(self, items_max: int = ITEMS_MAX) -> None:
        self.overflowed = False
        """something was left out since this was last set to False"""
        self._items_max = items_max
        self._waiting: dict[int, dict[_Key, RepairItem]] = {}
        """losses left → items, the oldest first"""
        self._danger: dict[_Key, int] = {}
        """of each waiting item: under which number of losses it is"""
        self._under_way: dict[_Key, RepairItem] = {}
        self._deferred: dict[_Key, tuple[float, RepairItem]] = {}
        self._due: list[tuple[float, int, _Key]] = []
        self._order = count()
        self._waiting_bytes = 0

    def __len__(self) -> int:
        """Of all that is not done."""
        return len(self._danger) + len(self._deferred) + len(self._under_way)

    @property
    def piece_bytes(self) -> int:
        """To be made for all of them."""
        others = sum(item.piece_bytes for _, item in self._deferred.values())
        return self._waiting_bytes + others + sum(item.piece_bytes for item in self._under_way.values())

    @property
    def under_way(self) -> int:
        """Taken, and neither done nor deferred."""
        return len(self._under_way)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is under way (what was deferred aside)."""
        return not self._danger and not self._under_way

    def add(self, item: RepairItem) -> None:
        """A chunk to be repaired. One that waits already keeps its age, under its new danger; one that was deferred
        waits on, and is tried again with what is known now; one that is being repaired is left to that."""
        key = item.key
        if key in self._under_way:
            return
        if key in self._deferred:
            due_s, known = self._deferred[key]
            self._deferred[key] = due_s, _with_strays(item, known)._replace(attempts=known.attempts)
            return
        before = self._danger.get(key)
        if before is not None:
            item = _with_strays(item, self._waiting[before][key])
            if before == item.losses_left:
                self._replace(key, item)
                return
            self._remove(key)
        elif len(self) >= self._items_max and not self._make_room(item.losses_left):
            return
        self._insert(item)

    def take(self, now_s: float) -> RepairItem | None:
        """The next one; None when nothing waits."""
        self._bring_back(now_s)
        if not self._danger:
            return None
        bucket = self._waiting[min(self._waiting)]
        item = self._remove(next(iter(bucket)))
        self._under_way[item.key] = item
        return item

    def done(self, item: RepairItem) -> None:
        """It needs no more repair, or a walk will tell."""
        self._under_way.pop(item.key, None)

    def defer(self, item: RepairItem, now_s: float) -> None:
        """Its repair failed: it waits for a while, longer each time."""
        self._under_way.pop(item.key, None)
        due_s = now_s + min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(item.attempts, 16))
        self._deferred[item.key] = due_s, item._replace(attempts=item.attempts + 1)
        heapq.heappush(self._due, (due_s, next(self._order), item.key))

    def clear(self) -> None:
        """Forget everything that waits."""
        self._waiting.clear()
        self._danger.clear()
        self._deferred.clear()
        self._due.clear()
        self._waiting_bytes = 0
        self.overflowed = False

    def _bring_back(self, now_s: float) -> None:
        while self._due and self._due[0][0] <= now_s:
            due_s, _, key = heapq.heappop(self._due)
            deferred = self._deferred.get(key)
            if deferred is not None and deferred[0] == due_s:
                del self._deferred[key]
                self._insert(deferred[1])

    def _make_room(self, losses_left: int) -> bool:
        """Whether a less endangered one than this could be left out."""
        self.overflowed = True
        last = max(self._waiting, default=losses_left)
        if last <= losses_left:
            return False
        self._remove(next(reversed(self._waiting[last])))
        return True

    def _insert(self, item: RepairItem) -> None:
        self._waiting.setdefault(item.losses_left, {})[item.key] = item
        self._danger[item.key] = item.losses_left
        self._waiting_bytes += item.piece_bytes

    def _replace(self, key: _Key, item: RepairItem) -> None:
        bucket = self._waiting[self._danger[key]]
        self._waiting_bytes += item.piece_bytes - bucket[key].piece_bytes
        bucket[key] = item

    def _remove(self, key: _Key) -> RepairItem:
        losses_left = self._danger.pop(key)
        item = self._waiting[losses_left].pop(key)
        if not self._waiting[losses_left]:
            del self._waiting[losses_left]
        self._waiting_bytes -= item.piece_bytes
        return item


def _with_strays(item: RepairItem, known: RepairItem) -> RepairItem:
    """Not everybody who asks for a repair has looked for strays."""
    return item if item.strays else item._replace(strays=known.strays)
