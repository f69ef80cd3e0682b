"""Where the master key comes from: a private file, made once, or the environment. It wraps bucket keys, nothing else.

A source may hold two keys while the master key is rotated: the first is what everything is wrapped with from now on,
the other still opens what was not re-wrapped yet. So a rotation that was cut off leaves nothing unreadable.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from storage.base.files import FileSystem, fetch_file, store_file
from storage.base.secret_variables import MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE
from storage.crypto.keys import KEY_BYTES

_FILE_BYTES_MAX = 1_024


class MasterKeys(Protocol):
    """A source of master keys. Errors of every method: ValueError, in one line that never shows key bytes."""

    def load(self) -> tuple[bytes, ...]:
        """Read the source anew: the key to wrap with, then those that may still be needed to unwrap."""
        ...

    def begin_rotation(self) -> None:
        """Make a new key the first of `load`, durably. Repeating it after a crash goes on with the same new key."""
        ...

    def finish_rotation(self) -> None:
        """Forget every key but the first, durably."""
        ...


class MasterKeyFile:
    """`master.key`: 32 bytes in base64. During a rotation the new one waits in `master.key.next` beside it."""

    def __init__(self, files: FileSystem, path: Path) -> None:
        self._files = files
        self._path = path
        self._next = path.with_name(path.name + ".next")

    def make(self) -> None:
        """Make the file unless it exists; durable when it returns."""
        self._make(self._path)

    def load(self) -> tuple[bytes, ...]:
        try:
            following = self._read(self._next)
            self._files.fsync_directory(self._path.parent)  # nothing is wrapped by a key that a power cut could take
        except FileNotFoundError:
            following = None
        try:
            current = self._read(self._path)
        except FileNotFoundError:
            raise ValueError(
                f"there is no master key: {self._path} is missing and {MASTER_KEY_VARIABLE} is not set"
            ) from None
        return (current,) if following in (None, current) else (following, current)

    def begin_rotation(self) -> None:
        self._make(self._next)

    def finish_rotation(self) -> None:
        try:
            self._files.replace(self._next, self._path)
        except FileNotFoundError:
            return
        self._files.fsync_directory(self._path.parent)

    def _make(self, path: Path) -> None:
        """A new random key unless there is one; durable either way."""
        try:
            store_file(self._files, path, _new_key_text(), exclusive=True)
        except FileExistsError:  # whoever was first may die before its name is durable
            self._files.fsync_directory(path.parent)

    def _read(self, path: Path) -> bytes:
        try:
            text = fetch_file(self._files, path, _FILE_BYTES_MAX).decode("ascii", "replace")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from None
        return parse_key(text, str(path))


class MasterKeyVariable:
    """FROSTBYTE_MASTER_KEY, and FROSTBYTE_MASTER_KEY_PREVIOUS while a rotation to it is under way.

    The environment is the operator's: to rotate, start with both set, rotate, then start without the previous one.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def load(self) -> tuple[bytes, ...]:
        names = [name for name in (MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE) if self._environment.get(name)]
        return tuple(parse_key(self._environment[name], name) for name in names)

    def begin_rotation(self) -> None:
        if not self._environment.get(PREVIOUS_VARIABLE):
            raise ValueError(
                f"to rotate, set {MASTER_KEY_VARIABLE} to the new key and {PREVIOUS_VARIABLE} to the old one"
            )

    def finish_rotation(self) -> None:
        """Nothing to do: the operator takes the previous key away."""


def open_master_keys(files: FileSystem, path: Path, environment: Mapping[str, str], *, make: bool) -> MasterKeys:
    """The environment's key when it is set, else the file's; `make` it if it is missing (first start only).

    ValueError in one line: bad base64, a wrong length, a file that others can read.
    """
    if environment.get(MASTER_KEY_VARIABLE):
        source: MasterKeys = MasterKeyVariable(environment)
    else:
        source = file = MasterKeyFile(files, path)
        if make:
            file.make()
        require_private(path)
    source.load()
    return source


def require_private(path: Path) -> None:
    """ValueError when group or others have any right on the file; one that is missing is someone else's error."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & 0o077:
        raise ValueError(f"{path} can be read by others (mode {mode:04o}); make it 0600")


def parse_key(text: str, name: str) -> bytes:
    """32 bytes from base64. ValueError names where it came from and shows nothing of it."""
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name} is not base64") from None
    if len(secret) != KEY_BYTES:
        raise ValueError(f"{name} must be {KEY_BYTES} bytes in base64, not {len(secret)}")
    return secret


def _new_key_text() -> bytes:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n"
