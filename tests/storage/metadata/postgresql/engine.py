"""The PostgreSQL engine as the conformance suite sees it: an empty database of the test process's server."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import msgspec

from storage.base.clock import ManualClock
from storage.metadata.interface import Metadata
from storage.metadata.postgresql.check import check_integrity
from storage.metadata.postgresql.engine import PostgresMetadata
from storage.metadata.postgresql.open import connect_postgres, open_postgres_metadata
from storage.metadata.postgresql.schema import read_schema_version
from storage.metadata.settings import POSTGRESQL, MetadataSettings
from tests.postgres_server import shared_databases


class PostgresEngine:
    """Workers with a pool each. Must be stopped, whatever happens, so that the next test gets the database."""

    def __init__(self, _: Path | None = None) -> None:
        self.clock = ManualClock()
        self.dsn = ""
        self.is_spoiled = False
        """set by a test that changes the schema"""
        self._databases = shared_databases()
        self._workers: list[PostgresMetadata] = []
        self._checking: asyncpg.Connection[asyncpg.Record] | None = None

    async def start(self) -> None:
        self.dsn = await self._databases.take()

    async def connect(self) -> Metadata:
        return await self.open(connections_max=8)

    async def open(self, *, connections_max: int, dsn: str = "") -> PostgresMetadata:
        """dsn: of something in between."""
        worker = await open_postgres_metadata(dsn or self.dsn, clock=self.clock, connections_max=connections_max)
        self._workers.append(worker)
        return worker

    def client_arguments(self) -> list[str]:
        return [msgspec.json.encode(MetadataSettings(engine=POSTGRESQL, dsn=self.dsn)).decode()]

    async def check(self) -> list[str]:
        if self._checking is None:
            self._checking = await connect_postgres(self.dsn)
        is_made = await read_schema_version(self._checking)
        return await check_integrity(self._checking) if is_made else []

    async def stop(self) -> None:
        for worker in self._workers:
            await worker.close()
        if self._checking is not None:
            await self._checking.close()
        await self._databases.give_back(self.dsn, is_spoiled=self.is_spoiled)
