"""PURE. Rules of writes that depend on the command alone, the same in every engine."""

from __future__ import annotations

from collections.abc import Iterable

from storage.base.errors import InvalidBucketState, LimitExceeded, ObjectLocked, StalePlacement
from storage.base.ids import GENERATION_MAX
from storage.metadata.commands import (
    OBJECT_LOCK_SETTING,
    ChangeObject,
    CommitVersion,
    Conditions,
    ForgetBlobs,
    Relayout,
)
from storage.model import Blob, LockMode, NodeState, ObjectLock, Versioning

NO_CONDITIONS = Conditions()

PART_SIZE_MIN_BYTES = 5 << 20
"""of every part but the last (AWS: Amazon S3 multipart upload limits)"""

COMPLETED_UPLOAD_TTL_MS = 7 * 24 * 3600 * 1000
"""how long a finished upload is answered again; S3 clients retry for minutes"""

COMPLETED_FORGOTTEN_PER_COMMAND = 16
"""old records that go with every completion, so that those of a week are all there ever are"""


def require_covered(size: int, spans: Iterable[tuple[int, int]]) -> None:
    """The pieces (offset, length), in order, must be the whole body. A caller that gets this wrong would lose bytes."""
    end = 0
    for offset, length in spans:
        if offset != end or length < 0:
            break
        end += length
    if end != size:
        raise LimitExceeded("the blobs of a version must add up to its size")


def commit_spans(command: CommitVersion) -> list[tuple[int, int]]:
    """Where the command's new blobs and shared extents lie in the version, for require_covered."""
    spans: list[tuple[int, int]] = []
    end = 0
    for blob in command.blobs:
        spans.append((end, blob.size))
        end += blob.size
    spans.extend((extent.offset, extent.length) for extent in command.shared)
    return spans


def is_locked(lock: ObjectLock, now_ms: int, *, bypass_governance: bool = False) -> bool:
    """Whether a version must stay (AWS: Locking objects with Object Lock)."""
    if lock.legal_hold:
        return True
    if lock.mode == LockMode.NONE or lock.retain_until_ms <= now_ms:
        return False
    return lock.mode == LockMode.COMPLIANCE or not bypass_governance


def choose_lock(lock: ObjectLock, change: ChangeObject, now_ms: int) -> ObjectLock:
    """A version's lock after the change. ObjectLocked when it would weaken a retention that has not run out."""
    wanted = change.retention
    hold = lock.legal_hold if change.legal_hold is None else change.legal_hold
    if wanted is None:
        return ObjectLock(lock.mode, lock.retain_until_ms, hold)
    is_running = lock.mode != LockMode.NONE and lock.retain_until_ms > now_ms
    is_weaker = wanted.mode != lock.mode or wanted.retain_until_ms < lock.retain_until_ms
    if is_running and is_weaker and (lock.mode == LockMode.COMPLIANCE or not change.bypass_governance):
        raise ObjectLocked("a retention that has not run out is only prolonged")
    return ObjectLock(wanted.mode, 0 if wanted.mode == LockMode.NONE else wanted.retain_until_ms, hold)


def failed_delete_condition(
    conditions: Conditions, *, etag: str, is_marker: bool, size: int, last_modified_ms: int
) -> str:
    """Of what a delete would remove or hide: the name of the first condition that does not hold, or nothing. A marker
    has no ETag, and meets `*` all the same."""
    if conditions.if_match is not None and conditions.if_match != "*" and (is_marker or conditions.if_match != etag):
        return "If-Match"
    if conditions.if_none_match is not None and not is_marker and conditions.if_none_match in ("*", etag):
        return "If-None-Match"
    if conditions.size is not None and conditions.size != size:
        return "x-amz-if-match-size"
    if conditions.last_modified_s is not None and conditions.last_modified_s != last_modified_ms // 1000:
        return "x-amz-if-match-last-modified-time"
    return ""


def require_lockable(versioning: Versioning, settings: Iterable[str]) -> None:
    """InvalidBucketState for a bucket with object lock, by the names of its settings, that is not versioned."""
    if versioning != Versioning.ENABLED and OBJECT_LOCK_SETTING in settings:
        raise InvalidBucketState("object lock needs versioning that stays enabled")


def require_first_layout(blob: Blob) -> None:
    """A blob that is new has the layout that it was written in."""
    if blob.generation != 0:
        raise LimitExceeded("a new blob is of generation 0")


def require_next_generation(command: Relayout) -> int:
    """The generation of the new layout. LimitExceeded when no chunk id could tell it from others."""
    generation = command.new_generation or command.generation + 1
    if not 0 <= command.generation < generation <= GENERATION_MAX:
        raise LimitExceeded(f"a new layout is of a generation above the old one, and at most {GENERATION_MAX}")
    return generation


def layouts_to_forget(command: ForgetBlobs) -> list[tuple[bytes, int]]:
    """(blob id, generation) of each. LimitExceeded when some have a generation and others none."""
    if not command.generations:
        return [(blob_id, 0) for blob_id in command.blob_ids]
    if len(command.generations) != len(command.blob_ids):
        raise LimitExceeded("there is one generation to each blob id, or none at all")
    return list(zip(command.blob_ids, command.generations, strict=True))


def stays_closed(before: NodeState, after: NodeState) -> bool:
    """Whether a node that is closed for commits remains so in its next state: a drain that is taken back opens it."""
    return before is not NodeState.DRAINING or after in (NodeState.DRAINING, NodeState.GONE)


def stale_placement(number: int) -> StalePlacement:
    """The refusal of what names this node."""
    return StalePlacement("a chunk was placed on a node that is closed, as it is being drained", node=str(number))
