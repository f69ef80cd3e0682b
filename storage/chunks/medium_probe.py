"""A few bytes that are written to a medium and read back, to see whether it works."""

from __future__ import annotations

import os
from contextlib import suppress

from storage.base.errors import Corrupt, NodeFull
from storage.base.files import FileSystem
from storage.chunks import medium_errors

PROBE = "probe"
PROBE_BYTES = 4096


def probe_medium(files: FileSystem, directory: str) -> None:
    """Write a few bytes into a directory, sync them and read them back. Blocking. ChunkError, Corrupt: what is wrong
    with the medium; a full one is not wrong."""
    path, written = f"{directory}/{PROBE}", os.urandom(PROBE_BYTES)
    with suppress(NodeFull), medium_errors.writing():
        with suppress(FileNotFoundError):  # what one that failed left
            files.unlink(path)
        with files.create(path) as file:
            file.write([written])
            file.fdatasync()
            file.drop_cached()
            with medium_errors.reading():
                found = file.pread(PROBE_BYTES, 0)
        if found != written:
            raise Corrupt("the medium gives other bytes back than were written")
        files.unlink(path)
