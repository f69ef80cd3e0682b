"""A real metadata owner process for tests: `python -m storage.metadata`, started, killed and started again."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from storage.metadata.sqlite.open import open_metadata
from storage.metadata.sqlite.reader import SqliteMetadata

CONNECT_DEADLINE_S = 60.0


class OwnerProcess:
    """On DIRECTORY/metadata.db and DIRECTORY/s. `prefix`: a program that runs it, as strace."""

    def __init__(self, directory: Path, prefix: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.socket_path = directory / "s"
        self._prefix = prefix
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        arguments = ("-m", "storage.metadata", "--data", str(self.directory), "--socket", str(self.socket_path))
        self._process = await asyncio.create_subprocess_exec(
            *self._prefix, sys.executable, *arguments, stderr=asyncio.subprocess.PIPE
        )

    async def connect(self) -> SqliteMetadata:
        return await open_metadata(self.directory, self.socket_path, CONNECT_DEADLINE_S)

    @property
    def pid(self) -> int:
        """Of the program in front, when there is one."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()

    async def stop(self) -> tuple[int, str]:
        """SIGTERM → (exit status, what it logged)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> tuple[int, str]:
        assert self._process is not None
        _, logged = await self._process.communicate()
        return self._process.returncode or 0, logged.decode()
