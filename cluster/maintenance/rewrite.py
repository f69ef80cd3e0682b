"""PURE. Which blobs are laid out anew, under which generation, from which of their pieces; and when a bucket is looked
through for them.

Each attempt has a generation that hardly any other attempt at the same blob has: masters take theirs from residue
classes, by their terms, and one master never takes the same twice. Ids on datanodes are thus used once, but for two
terms of one class: whoever takes an attempt back looks whether it is the layout (blob_rewrite.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from cluster.bucket_redundancy import is_rewrite_stopped, redundancy_of_bucket
from cluster.maintenance.pieces import named_pieces, redundancy_of
from cluster.redundancy import Redundancy, choose_for_size
from storage.base.ids import GENERATION_MAX
from storage.metadata.interface import ChunkPlace
from storage.model import Blob, Bucket

TERM_CLASSES = 64
"""more would let fewer attempts at one blob be made, fewer would make two masters of one class more likely"""
TRIED_MAX = 10_000
LOOK_AGAIN_S = 3_600.0
"""uploads that were begun before a change, and completed since, are found then"""
TRY_AGAIN_S = 10.0
"""after a look that found something to do; twice as long after each that only failed, up to LOOK_AGAIN_S"""


class Rewrite(NamedTuple):
    """Lay this blob out in this redundancy, under this generation."""

    blob: Blob
    redundancy: Redundancy
    generation: int


class Attempts:
    """The generations that this process used. The oldest are forgotten: what they sent has long arrived."""

    def __init__(self, tried_max: int = TRIED_MAX) -> None:
        self._tried_max = tried_max
        self._tried: dict[bytes, int] = {}

    def plan(self, blob: Blob, policy: Redundancy, term: int) -> Rewrite | None:
        """policy: of the blob's bucket. term: of this master. None for a blob that is as it should be."""
        wanted = choose_for_size(policy, blob.size)
        if blob.inline is not None or str(wanted) == blob.redundancy:
            return None
        above = max(blob.generation, self._tried.get(blob.blob_id, 0)) + 1
        return Rewrite(blob, wanted, above + (term - above) % TERM_CLASSES)

    def note(self, rewrite: Rewrite) -> None:
        """It is begun."""
        self._tried.pop(rewrite.blob.blob_id, None)
        self._tried[rewrite.blob.blob_id] = rewrite.generation
        if len(self._tried) > self._tried_max:
            del self._tried[next(iter(self._tried))]


def is_exhausted(rewrite: Rewrite) -> bool:
    """Whether there is no such generation: the blob stays as it is for ever."""
    return rewrite.generation > GENERATION_MAX


def choose_sources(place: ChunkPlace, failed: Collection[int], doubtful: Collection[int]) -> Mapping[int, int] | None:
    """position → node, as many as bring the chunk back; None when too few are left. Fragments that hold frames come
    first, as nothing has to be rebuilt then; nodes that failed (for this chunk) are left out, doubtful ones come last.
    """
    pieces = [(position, node) for position, node in named_pieces(place) if node not in failed]
    pieces.sort(key=lambda piece: (piece[1] in doubtful, piece[0]))
    needed = redundancy_of(place).needed
    return dict(pieces[:needed]) if len(pieces) >= needed else None


class _Look(NamedTuple):
    """One look through a bucket that came to its end."""

    policy: Redundancy
    ended_s: float
    rest_s: float
    """until the next one"""
    has_failed: bool


class Looks:
    """When each bucket was looked through, by this process; moments are by a steady clock."""

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def is_due(self, bucket: Bucket, default: Redundancy, now_s: float) -> bool:
        """Whether to look through a bucket now. Corrupt for settings that cannot be read."""
        if is_rewrite_stopped(bucket):
            return False
        policy = redundancy_of_bucket(bucket, default)
        last = self._looks.get(bucket.bucket_id)
        if last is None or last.policy != policy:
            return True
        return now_s - last.ended_s >= last.rest_s

    def note(self, bucket: Bucket, policy: Redundancy, now_s: float, *, failed: int, rewritten: int) -> None:
        """It was looked through to its end, or as far as was of any use; how many blobs failed, and were laid out."""
        last = self._looks.get(bucket.bucket_id)
        # One that laid out something is followed by one that finds nothing more: rows may appear behind a look.
        rest_s = TRY_AGAIN_S if failed or rewritten else LOOK_AGAIN_S
        if failed and not rewritten and last is not None and last.has_failed and last.policy == policy:
            rest_s = min(last.rest_s * 2, LOOK_AGAIN_S)
        self._looks[bucket.bucket_id] = _Look(policy, now_s, rest_s, failed > 0)

    def forget(self) -> None:
        """Every bucket is due."""
        self._looks.clear()

    def keep_only(self, buckets: Iterable[Bucket]) -> None:
        """The others are gone."""
        there = {bucket.bucket_id for bucket in buckets}
        self._looks = {bucket_id: look for bucket_id, look in self._looks.items() if bucket_id in there}
