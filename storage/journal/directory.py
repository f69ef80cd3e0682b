"""The journal files of a datanode that is stopped, read from its directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

from storage.base.errors import JournalError
from storage.base.files import DiskFiles
from storage.datanode.journal_files import list_journal, read_fence
from storage.datanode.journal_wire import JournalListing, parse_name

_FILES = DiskFiles()


class DirectorySource:
    """A Source. directory: `journal` below the datanode's own; one that is not there holds nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory.parent)

    async def list(self) -> JournalListing:
        """JournalError."""
        return await asyncio.to_thread(self._list)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """JournalError."""
        parse_name(name)
        return await asyncio.to_thread(self._read, name, offset, length)

    def _list(self) -> JournalListing:
        root = str(self._directory)
        try:
            return JournalListing(read_fence(_FILES, root), list_journal(_FILES, root))
        except FileNotFoundError:
            return JournalListing(read_fence(_FILES, root), [])
        except OSError as error:
            raise JournalError(f"{root}: {error.strerror}") from error

    def _read(self, name: str, offset: int, length: int) -> bytes:
        try:
            with _FILES.open(self._directory / name) as file:
                return file.pread(length, offset)
        except OSError as error:
            raise JournalError(f"{self._directory / name}: {error.strerror}") from error
