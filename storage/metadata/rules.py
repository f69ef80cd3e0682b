"""PURE. Rules of writes that depend on the command alone, the same in every engine."""

from __future__ import annotations

from collections.abc import Iterable

from storage.base.errors import LimitExceeded
from storage.metadata.commands import CommitVersion

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
