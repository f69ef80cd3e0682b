"""The files of the metadata's journal below one datanode's directory, as blocking steps. Nothing here reads what is in
them: they are sealed.

    journal/segment-…, snapshot-…     see journal_wire
    journal/fence                     the highest owner that was ever here, 32 hex digits
    journal/.<name>.<hex>.tmp         a leftover that the next start removes

What a power cut before each step leaves:
- put: temporary file → fsync → link → fsync of the directory → answer. The whole file or none.
- append: write at the end, over zeros that are there already or with some more behind (AppendedFile) → fdatasync →
  answer. What was there before, and of the new bytes any part, none of which was answered for: who reads a segment
  finds where its whole records end. After a kill -9 a file is listed with its zeros, up to the next append to it.
- fence: temporary file → fsync → rename → fsync of the directory → answer. The old fence or the new one; once it was
  answered, what an owner below it still had under way is answered with JournalFenced, whatever became of the bytes.
- delete: unlink → fsync of the directory → answer. Gone, or still there: the owner asks again.

The metadata must go on when disks are full, so a journal may use half of the reserve that chunks leave alone. After a
failed write or sync a file takes nothing more until the process is started again: what a later sync would make durable
is not known.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from storage.base.errors import JournalConflict, JournalError, JournalFenced, JournalFileNotFound, NodeFull
from storage.base.files import TEMPORARY_SUFFIX, AnyPath, FileSystem, fetch_file, make_directories, store_file
from storage.chunks.medium_errors import FULL
from storage.datanode.appended_file import AppendedFile
from storage.datanode.journal_wire import (
    APPEND_BYTES_MAX,
    FILE_BYTES_MAX,
    FILES_MAX,
    NO_OWNER,
    READ_BYTES_MAX,
    WHOLE_BYTES_MAX,
    JournalFile,
    JournalListing,
    parse_name,
)

JOURNAL_DIRECTORY = "journal"
FENCE_NAME = "fence"
OPEN_FILES_MAX = 4
"""segments that were appended to and are kept open: there is one owner, which writes to one"""
TURNSTILES = 16
_FENCE_BYTES_MAX = 64
_FENCE = re.compile(r"[0-9a-f]{32}\Z")


class JournalFiles:
    """One process's journal files. Every method may block and is safe to call from many threads."""

    def __init__(self, files: FileSystem, directory: AnyPath, reserve_bytes: int) -> None:
        """directory: the datanode's own, whose lock the caller holds. reserve_bytes: what chunks leave free. OSError;
        JournalError when the fence cannot be read, which must not be taken for none."""
        self._files = files
        self._root = f"{os.fspath(directory)}/{JOURNAL_DIRECTORY}"
        self._reserve_bytes = reserve_bytes
        self._fence_lock = threading.Lock()
        self._turnstiles = [threading.Lock() for _ in range(TURNSTILES)]
        self._open_files: dict[str, AppendedFile] = {}
        """the one that was used last comes last"""
        self._open_lock = threading.Lock()
        self._broken: set[str] = set()
        make_directories(files, self._root)
        for name in list(files.list_directory(self._root)):
            if name.endswith(TEMPORARY_SUFFIX):
                files.unlink(f"{self._root}/{name}")
        self._fence = read_fence(files, self._root)

    def close(self) -> None:
        """Let go of the open files."""
        with self._open_lock:
            for file in self._open_files.values():
                file.finish()
            self._open_files.clear()

    # --- who may change anything

    @property
    def fence(self) -> bytes:
        """The highest owner that was here."""
        return self._fence

    def admit(self, owner: bytes) -> None:
        """Durably refuse every owner below this one from now on. JournalFenced for one that is below another."""
        with self._fence_lock:
            if owner > self._fence:
                with _writing():
                    store_file(self._files, f"{self._root}/{FENCE_NAME}", owner.hex().encode() + b"\n")
                self._fence = owner
        self._require_newest(owner)

    def _require_newest(self, owner: bytes) -> None:
        if owner < self._fence:
            raise JournalFenced(f"owner {self._fence.hex()} was here after {owner.hex()}")

    # --- reading

    def list(self) -> JournalListing:
        """Every file, by name."""
        with _reading():
            found = list_journal(self._files, self._root)
        with self._open_lock:
            lengths = {name: file.length for name, file in self._open_files.items()}
        return JournalListing(self._fence, [JournalFile(it.name, lengths.get(it.name, it.length)) for it in found])

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes (READ_BYTES_MAX at most); fewer only where the file ends. JournalFileNotFound."""
        with self._open_lock:
            appended = self._open_files.get(name)
        ends = offset + READ_BYTES_MAX if appended is None else appended.length
        with _reading(), self._files.open(self._path(name)) as file:
            return file.pread(max(0, min(length, READ_BYTES_MAX, ends - offset)), offset)

    # --- changing

    def put(self, owner: bytes, name: str, data: bytes) -> int:
        """Make a file of these bytes, durably; its length. JournalConflict when it is there with others; JournalFenced,
        NodeFull."""
        path = self._path(name)
        if len(data) > WHOLE_BYTES_MAX:
            raise JournalError(f"a file has at most {WHOLE_BYTES_MAX} bytes, not {len(data)}")
        self.admit(owner)
        with _writing():
            self._require_room(len(data))
            if sum(1 for _ in self._files.list_directory(self._root)) >= FILES_MAX:
                raise JournalError(f"there are {FILES_MAX} journal files already")
            try:
                store_file(self._files, path, data, exclusive=True)
            except FileExistsError:
                self._require_same(path, data)
        self._require_newest(owner)
        return len(data)

    def append(self, owner: bytes, name: str, offset: int, data: bytes) -> int:
        """Add bytes to a file that has `offset` bytes so far, durably; its length then. JournalConflict when it has
        another length; JournalFileNotFound, JournalFenced, NodeFull."""
        self._path(name)
        length = offset + len(data)
        if len(data) > APPEND_BYTES_MAX or length > FILE_BYTES_MAX:
            raise JournalError(f"an append of {len(data)} bytes at {offset} is above the bounds")
        self.admit(owner)
        with self._turnstiles[hash(name) % TURNSTILES], _writing():
            if name in self._broken:
                raise JournalError(f"a write to {name} failed; it takes no more")
            file = self._opened(name)
            try:
                file.append(offset, data)
            except OSError:
                self._broken.add(name)
                self._drop(name)
                raise
        self._require_newest(owner)
        return length

    def delete(self, owner: bytes, name: str) -> bool:
        """Remove durably; True where there was a file. JournalFenced."""
        path = self._path(name)
        self.admit(owner)
        with self._turnstiles[hash(name) % TURNSTILES], _writing():
            self._drop(name)
            try:
                self._files.unlink(path)
                was_there = True
            except FileNotFoundError:
                was_there = False
            self._files.fsync_directory(self._root)
            return was_there

    def _require_room(self, length: int) -> None:
        free_bytes = self._files.space(self._root).free_bytes
        if free_bytes - length < self._reserve_bytes // 2:
            raise NodeFull(f"{free_bytes} bytes free, half of {self._reserve_bytes} in reserve")

    def _require_same(self, path: str, data: bytes) -> None:
        with self._files.open(path) as file:
            if file.size() != len(data) or file.pread(len(data), 0) != data:
                raise JournalConflict("the file is there with other bytes")
        self._files.fsync_directory(self._root)  # its writer may have been cut off before that

    def _opened(self, name: str) -> AppendedFile:
        with self._open_lock:
            file = self._open_files.pop(name, None)
            if file is None:
                opened = self._files.open(self._path(name), writable=True)
                file = AppendedFile(name, opened, FILE_BYTES_MAX, self._require_room)
                while len(self._open_files) >= OPEN_FILES_MAX:
                    self._open_files.pop(next(iter(self._open_files))).close()
            self._open_files[name] = file
            return file

    def _drop(self, name: str) -> None:
        with self._open_lock:
            file = self._open_files.pop(name, None)
        if file is not None:
            file.close()

    def _path(self, name: str) -> str:
        try:
            parse_name(name)
        except ValueError as error:
            raise JournalError(str(error)) from error
        return f"{self._root}/{name}"


def read_fence(files: FileSystem, root: str) -> bytes:
    """Of a journal directory; NO_OWNER where none ever was. JournalError for one that is damaged."""
    try:
        text = fetch_file(files, f"{root}/{FENCE_NAME}", _FENCE_BYTES_MAX).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return NO_OWNER
    except ValueError:
        text = ""
    if not _FENCE.match(text):
        raise JournalError(f"{root}/{FENCE_NAME} is damaged")
    return bytes.fromhex(text)


def list_journal(files: FileSystem, root: str) -> list[JournalFile]:
    """Every journal file of a directory, by name. OSError."""
    found = []
    for name in files.list_directory(root):
        try:
            parse_name(name)
            found.append(JournalFile(name, files.stat(f"{root}/{name}").size))
        except (ValueError, FileNotFoundError):  # none of ours, or deleted since it was listed
            continue
    return sorted(found)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise JournalFileNotFound("no such journal file") from error
    except OSError as error:
        if error.errno in FULL:
            raise NodeFull("the medium is full") from error
        raise JournalError(f"the medium does not write: {error.strerror}") from error


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise JournalFileNotFound("no such journal file") from error
    except OSError as error:
        raise JournalError(f"the medium does not read: {error.strerror}") from error
