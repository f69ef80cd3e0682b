"""Waiting for a role that listens on a Unix socket; gateways are in test_listener."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

from s3gw.cli import readiness
from s3gw.cli.readiness import GatewayReadiness, SocketReadiness
from storage.base.errors import Unavailable


async def test_it_waits_until_somebody_accepts(tmp_path: Path) -> None:
    """A file that nobody listens on is not enough."""
    path = tmp_path / "socket"
    waiting = asyncio.create_task(SocketReadiness(str(path)).wait())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    async with await asyncio.start_unix_server(lambda _, writer: writer.close(), path):
        async with asyncio.timeout(60):
            await waiting


async def test_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what it waited for."""
    monkeypatch.setattr(readiness, "SOCKET_TIMEOUT_S", 0.05)
    with pytest.raises(Unavailable, match=r"nothing accepts at .*/socket after 0.05 s"):
        await SocketReadiness(str(tmp_path / "socket")).wait()


def test_another_program_can_be_told() -> None:
    """As what it is."""
    for ready in (SocketReadiness("/x"), GatewayReadiness("::1", 9000, True)):
        assert pickle.loads(pickle.dumps(ready.wait)).__self__ == ready
