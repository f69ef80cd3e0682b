"""The PostgreSQL engine alone, for what only it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storage.metadata.postgresql.engine import PostgresMetadata
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.postgresql.engine import PostgresEngine


@pytest.fixture
async def postgres() -> AsyncIterator[PostgresEngine]:
    """An empty database; what a test leaves behind must be whole, unless it spoils the schema."""
    running = PostgresEngine()
    await running.start()
    try:
        yield running
        assert running.is_spoiled or await running.check() == []
    finally:
        await running.stop()


@pytest.fixture
async def metadata(postgres: PostgresEngine) -> PostgresMetadata:
    """One worker's access."""
    return await postgres.open(connections_max=4)


@pytest.fixture
async def worker(metadata: PostgresMetadata) -> Worker:
    """A worker with an open write session and an unversioned bucket."""
    return await Worker.start(metadata)
