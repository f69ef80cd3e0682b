"""A stored chunk, open for reading: whole to its reader even when it is deleted meanwhile."""

from __future__ import annotations

import threading
from typing import Self

from storage.base.errors import Corrupt
from storage.base.files import OpenFile
from storage.chunks import medium_errors
from storage.chunks.footer import FOOTER_BYTES, RunningDigest, parse_footer
from storage.chunks.store import ChunkReceipt

SCAN_BYTES = 1 << 20
"""read at once while verifying"""


class _ScanBuffer(threading.local):
    """One buffer a thread, kept: memory touched for the first time costs more than reading into it."""

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(SCAN_BYTES))


_scan = _ScanBuffer()


class OpenChunk:
    """For one thread at a time."""

    def __init__(self, file: OpenFile) -> None:
        """Takes over the file, and closes it when the footer is damaged or tells of another length: Corrupt."""
        self._file = file
        try:
            size = file.size()
            self.footer = parse_footer(file.pread(FOOTER_BYTES, max(0, size - FOOTER_BYTES)), size)
        except BaseException:
            file.close()
            raise

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
        """Sealed bytes [start, end), which lie within the chunk. Corrupt."""
        with medium_errors.reading():
            data = self._file.pread(end - start, start)
        if len(data) != end - start:
            raise Corrupt("the file became shorter")
        return data

    def verify(self) -> ChunkReceipt:
        """Read every byte and compare with the footer. Corrupt."""
        found = RunningDigest()
        with medium_errors.reading():
            while found.length < self.footer.length:
                target = _scan.memory[: self.footer.length - found.length]
                read = self._file.pread_into(target, found.length)
                if not read:
                    raise Corrupt("the file became shorter")
                found.update(target[:read])
        receipt = found.receipt()
        if receipt != self.footer.receipt:
            raise Corrupt("the bytes are not those that were stored")
        return receipt

    def close(self) -> None:
        """Twice is no error."""
        self._file.close()
