"""The owner's side of the metadata socket: it is made here, and read by the committer on its thread (intake.py)."""

from __future__ import annotations

import socket
from pathlib import Path

from storage.metadata.sqlite.configuration_page import ConfigurationPage, page_path
from storage.metadata.sqlite.writer import GroupCommitter

_BACKLOG = 128


class MetadataServer:
    """Listens on a Unix socket for a committer."""

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer
        self._path: Path | None = None

    async def start(self, path: Path) -> None:
        """Take over the path (the caller holds the owner's lock, so what is there is stale)."""
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        path.chmod(0o600)
        page = ConfigurationPage.create(path)
        listening.listen(_BACKLOG)
        self._path = path
        self._committer.listen(listening, page)

    async def close(self) -> None:
        """Take no more commands, answer what is under way, then hang up."""
        await self._committer.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            page_path(self._path).unlink(missing_ok=True)
