"""A stored chunk, open for reading."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Self

from storage.base.errors import Corrupt
from storage.base.files import OpenFile
from storage.base.untouched import untouched_memory
from storage.chunks import medium_errors
from storage.chunks.footer import FOOTER_BYTES, Footer, RunningDigest, parse_footer
from storage.chunks.store import ChunkReceipt, ChunkState
from storage.chunks.times import read_times, verified_times

SCAN_BYTES = 1 << 20
"""read at once while verifying"""


class _ScanBuffer(threading.local):
    """One buffer a thread, kept: memory touched for the first time costs more than reading into it."""

    def __init__(self) -> None:
        self.memory = untouched_memory(SCAN_BYTES)


_scan = _ScanBuffer()


class OpenChunk(ABC):
    """For one thread at a time."""

    def __init__(self, file: OpenFile, footer: Footer, base: int) -> None:
        """base: where the sealed bytes begin in the file."""
        self.footer = footer
        self._file = file
        self._base = base

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def clamp(self, offset: int, length: int | None) -> tuple[int, int]:
        """The span (start, end) of the chunk that [offset, offset + length) covers; to the end for None.

        ValueError for a negative offset or length."""
        if offset < 0 or (length is not None and length < 0):
            raise ValueError(f"no span of {length} bytes at {offset}")
        start = min(offset, self.footer.length)
        return start, self.footer.length if length is None else min(start + length, self.footer.length)

    def read(self, start: int, end: int) -> bytes:
        """Sealed bytes [start, end), which lie within the chunk. Corrupt; ChunkNotFound where it went meanwhile."""
        with medium_errors.reading():
            data = self._file.pread(end - start, self._base + start)
        self._require_there()
        if len(data) != end - start:
            raise Corrupt("the file became shorter")
        return data

    @property
    @abstractmethod
    def state(self) -> ChunkState:
        """What is known without reading the chunk."""

    def verify(self) -> ChunkReceipt:
        """Read every byte from the medium and compare with the footer. Corrupt; ChunkNotFound where it went meanwhile.

        The page cache is told to let go of the chunk, before so that the medium is read, and after so that a scrub does
        not push out what others read. (O_DIRECT, measured on ext4: a quarter quicker for small chunks, and slower by
        more than half for those of 8 MiB, as nothing is read ahead.) What a disk keeps in a cache of its own is out of
        reach."""
        found = RunningDigest()
        with medium_errors.reading():
            self._drop_cached()
            while found.length < self.footer.length:
                target = _scan.memory[: self.footer.length - found.length]
                read = self._file.pread_into(target, self._base + found.length)
                if not read:
                    raise Corrupt("the file became shorter")
                found.update(target[:read])
            self._drop_cached()
        self._require_there()
        receipt = found.receipt()
        if receipt != self.footer.receipt:
            raise Corrupt("the bytes are not those that were stored")
        return receipt

    @abstractmethod
    def note_verified(self, verified_ms: int) -> None:
        """Remember when the chunk was verified. Where the medium takes no times it is verified again some day."""

    @abstractmethod
    def close(self) -> None:
        """Twice is no error."""

    @abstractmethod
    def _drop_cached(self) -> None:
        """Let the chunk be read from the medium."""

    @abstractmethod
    def _require_there(self) -> None:
        """ChunkNotFound when what was just read may not have been the chunk."""


class OpenChunkFile(OpenChunk):
    """A chunk that has a file of its own: whole to its reader even when its name goes."""

    def __init__(self, file: OpenFile) -> None:
        """Takes over the file. Corrupt when the footer is damaged or tells of another length: the file is the caller's
        still."""
        with medium_errors.reading():
            size = file.size()
            footer = file.pread(FOOTER_BYTES, max(0, size - FOOTER_BYTES))
        super().__init__(file, parse_footer(footer, size), 0)

    @property
    def state(self) -> ChunkState:
        """The footer knows best when the chunk was stored."""
        with medium_errors.reading():
            verified_ms = read_times(self._file.stat()).verified_ms
        return ChunkState(*self.footer, verified_ms)

    def note_verified(self, verified_ms: int) -> None:
        with suppress(OSError):
            self._file.set_times(*verified_times(self.footer.stored_ms, verified_ms))

    def close(self) -> None:
        self._file.close()

    def _drop_cached(self) -> None:
        self._file.drop_cached()

    def _require_there(self) -> None:
        """Whoever has the file open reads on."""


class FilePlace:
    """A chunk's own file, held open."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def open(self) -> OpenChunkFile:
        """To be read while the place is held; need not be closed. Corrupt."""
        return OpenChunkFile(self.file)
