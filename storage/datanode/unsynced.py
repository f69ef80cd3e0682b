"""Files that are never synced: what durability "none" runs on, so that a benchmark can compare with servers that do not
sync either. Nothing written through it survives a power cut for certain.
"""

from __future__ import annotations

import os

from storage.base.files import PRIVATE_FILE_MODE, AnyPath, DiskFile, DiskFiles, OpenFile


class UnsyncedFile(DiskFile):
    """An open file whose syncs do nothing."""

    __slots__ = ()

    def fdatasync(self) -> None:
        pass

    def fsync(self) -> None:
        pass


class UnsyncedFiles(DiskFiles):
    """The machine's files without any sync."""

    def create(self, path: AnyPath, mode: int = PRIVATE_FILE_MODE) -> OpenFile:
        return UnsyncedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode))

    def fsync_directory(self, path: AnyPath) -> None:
        pass
