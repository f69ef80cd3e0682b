"""The scene that the tests of the survey share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.maintenance.scene import open_scene
from tests.cluster.maintenance.survey_master import Master


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    """Six nodes, and a few objects of both kinds."""
    async with open_scene(tmp_path, 6) as scene:
        yield Master(scene)
