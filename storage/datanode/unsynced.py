"""Files that are never synced: what durability "none" runs on, so that a benchmark can compare with servers that do not
sync either. Nothing written through it survives a power cut for certain.
"""

from __future__ import annotations

from storage.base.files import AnyPath, DiskFile, DiskFiles


class UnsyncedFile(DiskFile):
    """An open file whose syncs do nothing."""

    __slots__ = ()

    def fdatasync(self) -> None:
        pass

    def fsync(self) -> None:
        pass


class UnsyncedFiles(DiskFiles):
    """The machine's files without any sync."""

    file_class = UnsyncedFile

    def fsync_directory(self, path: AnyPath) -> None:
        pass
