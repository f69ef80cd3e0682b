"""The engines that the suite runs against. After every test the whole store is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.metadata.interface import Metadata
from storage.model import Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine, SqliteEngine
from tests.storage.metadata.postgresql.engine import PostgresEngine

ENGINES = {"sqlite": SqliteEngine, "postgresql": PostgresEngine}


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """A fresh, running engine; what a test leaves behind must be whole."""
    running: Engine = ENGINES[request.param](tmp_path)
    await running.start()
    try:
        yield running
        assert await running.check() == []
    finally:
        await running.stop()


@pytest.fixture
async def metadata(engine: Engine) -> Metadata:
    """One worker's access."""
    return await engine.connect()


@pytest.fixture
async def worker(metadata: Metadata) -> Worker:
    """A worker with an open write session and an unversioned bucket."""
    return await Worker.start(metadata)


@pytest.fixture
async def versioned(worker: Worker) -> Worker:
    """A bucket that keeps versions."""
    return await worker.in_bucket("versioned", Versioning.ENABLED)
