"""What the tests of reads share."""

from __future__ import annotations

import pytest

from storage.chunks import near_chunks
from tests.cluster.near import NEAR, WIRE


@pytest.fixture(params=[WIRE, NEAR])
def is_near(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """How a gateway comes by the bytes of a piece. No file is kept open: what becomes of files is seen at once."""
    monkeypatch.setattr(near_chunks, "OPEN_S_MAX", 0)
    return bool(request.param == NEAR)
