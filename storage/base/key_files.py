"""The internal key as a file: 32 bytes in base64, 0600."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from storage.base.files import FileSystem, fetch_file, store_file
from storage.base.internal_auth import INTERNAL_KEY_BYTES

_FILE_BYTES_MAX = 1_024


def read_internal_key(files: FileSystem, path: Path) -> bytes:
    """ValueError in one line that shows nothing of it; also for a file that cannot be read."""
    try:
        internal_key = base64.b64decode(fetch_file(files, path, _FILE_BYTES_MAX).strip(), validate=True)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except binascii.Error:
        raise ValueError(f"{path} is not base64") from None
    if len(internal_key) != INTERNAL_KEY_BYTES:
        raise ValueError(f"{path} must hold {INTERNAL_KEY_BYTES} bytes in base64")
    return internal_key


def store_internal_key(files: FileSystem, path: Path, internal_key: bytes) -> None:
    """Whole and durable when it returns."""
    store_file(files, path, base64.b64encode(internal_key) + b"\n")
