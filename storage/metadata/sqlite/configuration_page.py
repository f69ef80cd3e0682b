"""The configuration sequence in memory that the owner shares with the workers: a file of 8 bytes beside its socket.

Of a PUT a worker must know whether what it remembers of users and buckets still holds. Asking the database costs 10 µs,
and more while commits make the reader forget its pages; a look here costs less than one.

The owner tells of a change after its commit and before its answer, so who saw the answer finds the page changed. Who
reads the database may see a change a moment before. A page belongs to one owner: it is made before the socket, and a
worker opens it with each connection. An owner that died between a commit and the page leaves one that is behind, but no
connection that a write could be sent through.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Self

PAGE_BYTES = 8


class ConfigurationPage:
    """Made by `create` or `open`."""

    def __init__(self, shared: mmap.mmap) -> None:
        self._shared = shared
        self._sequence = memoryview(shared).cast("Q")

    @classmethod
    def create(cls, socket_path: Path) -> Self:
        """In place of that of an earlier owner, with a sequence that nothing ever has. OSError."""
        path = page_path(socket_path)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(PAGE_BYTES))
            return cls(mmap.mmap(descriptor, PAGE_BYTES))
        finally:
            os.close(descriptor)

    @classmethod
    def open(cls, socket_path: Path) -> Self | None:
        """To read; None where the owner has none."""
        try:
            descriptor = os.open(page_path(socket_path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return cls(mmap.mmap(descriptor, PAGE_BYTES, access=mmap.ACCESS_READ))
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    @property
    def sequence(self) -> int:
        """As it was told last."""
        return self._sequence[0]

    def tell(self, sequence: int) -> None:
        """Aligned, so that nobody ever sees half of it."""
        self._sequence[0] = sequence

    def close(self) -> None:
        self._sequence.release()
        self._shared.close()


def page_path(socket_path: Path) -> Path:
    """Of the owner on this socket."""
    return socket_path.with_name(f"{socket_path.name}.configuration")
