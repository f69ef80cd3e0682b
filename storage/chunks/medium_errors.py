"""What a failing medium means to the callers of a chunk store: OSError in, the tree of storage.base.errors out."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from storage.base.errors import ChunkError, Corrupt, NodeFull

FULL = (errno.ENOSPC, errno.EDQUOT)
_UNREADABLE = (errno.EIO, errno.ENODATA, errno.EUCLEAN, errno.EBADMSG)
"""of a sector, as the disk or as the file system's own checksums say"""


def is_unreadable(error: OSError) -> bool:
    """Whether it says that the medium lost what lay there, rather than that it cannot be asked now."""
    return error.errno in _UNREADABLE


@contextmanager
def writing() -> Iterator[None]:
    """A full medium is NodeFull; any other refusal a plain ChunkError: write it elsewhere."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise NodeFull("the medium is full") from error
        raise ChunkError(f"the medium does not write: {error.strerror}") from error


@contextmanager
def reading() -> Iterator[None]:
    """A sector that cannot be read is Corrupt, as damaged bytes are; any other refusal a plain ChunkError."""
    try:
        yield
    except OSError as error:
        if is_unreadable(error):
            raise Corrupt("the medium cannot read the chunk") from error
        raise ChunkError(f"the medium does not read: {error.strerror}") from error
