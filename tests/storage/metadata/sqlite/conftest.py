"""The owner that the tests of groups use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base.clock import ManualClock
from storage.metadata.sqlite.open import MetadataOwner
from tests.storage.metadata.engines import check_database
from tests.storage.metadata.sqlite.owned import GatedJournal, Owned


@pytest.fixture
async def owned(tmp_path: Path) -> AsyncIterator[Owned]:
    """Checked and closed after the test."""
    journal, clock = GatedJournal(), ManualClock()
    owner = await MetadataOwner.open(tmp_path, clock=clock, journal=journal)
    running = Owned(tmp_path, owner, journal, clock)
    yield running
    journal.gate.set()
    assert check_database(tmp_path) == []
    await running.metadata.close()
    await owner.close()
