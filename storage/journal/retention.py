"""PURE. What of the journal is kept: everything that leads to any moment of the retention, and to now.

The *base* is the newest whole snapshot that is as old as the retention reaches: with it and all that was written since,
any later moment can be restored. Older snapshots go, and segments that hold nothing after the base. Above a bound of
bytes the base is a newer one, up to the newest of the present history, which is what a recovery to now needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from storage.datanode.journal_wire import SEGMENT, JournalFile, parse_name
from storage.journal.history import plan_spans, spans_after
from storage.journal.record import SegmentHeader
from storage.journal.snapshot_format import Manifest


class Keeping(NamedTuple):
    """What a recovery reads. snapshots: whole ones by id; segments: headers by id."""

    snapshots: Mapping[bytes, Manifest]
    segments: Mapping[bytes, SegmentHeader]


class Deletions(NamedTuple):
    """Ids of what may go."""

    snapshots: frozenset[bytes]
    segments: frozenset[bytes]


NOTHING = Deletions(frozenset(), frozenset())


def plan_deletions(
    found: Keeping, sizes: Mapping[bytes, int], history: int, *, older_than_ms: int, bytes_max: int
) -> Deletions:
    """sizes: bytes of each snapshot and segment, once, however many replicas it has. history: the present one, which
    goes only down to its newest whole snapshot; without one nothing goes."""
    in_order = sorted(found.snapshots.items(), key=lambda it: (it[1].taken_ms, it[0]))
    present = [index for index, (_, manifest) in enumerate(in_order) if manifest.history == history]
    if not present:
        return NOTHING
    base = max((index for index, (_, it) in enumerate(in_order) if it.taken_ms <= older_than_ms), default=-1)
    base = min(base, present[-1])
    plan = _plan_for_base(found, in_order, base)
    while base < present[-1] and _count_kept(found, sizes, plan) > bytes_max:
        base += 1
        plan = _plan_for_base(found, in_order, base)
    return plan


def list_needed(found: Keeping, snapshot_id: bytes) -> list[bytes]:
    """The segments that lead from a snapshot to the end of its history, by id."""
    manifest = found.snapshots[snapshot_id]
    spans = plan_spans(found.segments.values(), manifest.history)
    return [span.segment_id for span in spans_after(spans, manifest.sequence)]


def choose_names(files: Iterable[JournalFile], deletions: Deletions, spared: frozenset[bytes]) -> list[str]:
    """Of one datanode's files: what to delete there, manifests before pieces, so that half of a snapshot is never taken
    for a whole one. Pieces without a manifest on the same datanode are what an attempt left. spared: ids of the
    snapshots and segments that are being written."""
    names = [(file.name, parse_name(file.name)) for file in files]
    whole = {name.file_id for _, name in names if name.kind != SEGMENT and name.piece is None}
    manifests: list[str] = []
    others: list[str] = []
    for text, name in names:
        if name.file_id in spared:
            continue
        if name.kind == SEGMENT:
            if name.file_id in deletions.segments:
                others.append(text)
        elif name.file_id in deletions.snapshots or name.file_id not in whole:
            (manifests if name.piece is None else others).append(text)
    return manifests + others


def _plan_for_base(found: Keeping, in_order: Sequence[tuple[bytes, Manifest]], base: int) -> Deletions:
    if base < 0:
        return NOTHING
    base_id, manifest = in_order[base]
    needed = list_needed(found, base_id)
    own = [segment_id for segment_id, header in found.segments.items() if header.history == manifest.history]
    oldest_needed = min(needed, default=max(own, default=b"") + b"\x00")
    return Deletions(
        frozenset(snapshot_id for snapshot_id, _ in in_order[:base]),
        frozenset(segment_id for segment_id in found.segments if segment_id < oldest_needed),
    )


def _count_kept(found: Keeping, sizes: Mapping[bytes, int], plan: Deletions) -> int:
    kept = (found.snapshots.keys() - plan.snapshots) | (found.segments.keys() - plan.segments)
    return sum(sizes.get(file_id, 0) for file_id in kept)
