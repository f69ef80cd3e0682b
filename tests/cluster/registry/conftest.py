"""What the tests of the master's parts share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.registry.served_master import Master, open_master


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    """One that has just begun."""
    async with open_master(tmp_path) as made:
        yield made
