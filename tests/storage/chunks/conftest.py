"""The directory that the tests of DiskChunkStore share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory that the store makes itself."""
    return tmp_path / "data" / "datanode"
