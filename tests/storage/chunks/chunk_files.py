"""Where DiskChunkStore keeps its files, for tests that look at them or damage them."""

from __future__ import annotations

from pathlib import Path

from storage.base.ids import ChunkId


def path_of(root: Path, of: ChunkId) -> Path:
    """Where the file of a chunk must be."""
    return root / "chunks" / str(of)[:29] / str(of)
