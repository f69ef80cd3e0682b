"""CrashFiles: a FileSystem in memory that knows what a power cut would leave.

Beside the tree that a running process sees it keeps the tree that is durable: the bytes of a file as of its last sync,
the names of a directory as of its last sync. Every change is a numbered step. `cut_before(n)` makes step n and whatever
follows raise PowerCut, and `survivors()` gives a new file system with what the medium would hold:

- `survivors()`               nothing that was not synced: no bytes, no names
- `survivors(names=True)`     every name and no unsynced byte: what a missing fdatasync before a rename looks like
- `survivors(seed=7)`         some of it: for each name a prefix of its changes, for each file some 512-byte sectors of
                              what was written, so that writes are torn

A rename is atomic as journals make it: the old name is never gone before the new one is there. `fail_before(n, error)`
lets one step fail with an OSError instead (a full or broken disk); a failed sync drops the unsynced bytes for good, as
Linux does.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Self

from storage.base.files import AlignedFile, AnyPath, Buffer, DiskSpace, FileStat, OpenFile

SECTOR_BYTES = 512
CAPACITY_BYTES = 1 << 30


class PowerCut(Exception):
    """The machine is off: this step did not happen, and no later one will."""


class _File:
    """A file's bytes and times as seen and as durable. `pending`: what was written since the last sync, in order.

    times: accessed and modified, nanoseconds."""

    def __init__(self, data: bytes = b"", times: tuple[int, int] = (0, 0)) -> None:
        self.data = bytearray(data)
        self.durable = bytes(data)
        self.pending: list[tuple[int, bytes]] = []
        self.times = self.durable_times = times

    def sync(self) -> None:
        self.durable = bytes(self.data)
        self.durable_times = self.times
        self.pending.clear()

    def surviving_times(self, rng: random.Random | None) -> tuple[int, int]:
        """The durable times; when there is an rng maybe those that were set since."""
        return self.times if rng is not None and rng.random() < 0.5 else self.durable_times

    def surviving(self, rng: random.Random | None) -> bytes:
        """The durable bytes, with some sectors of the pending writes when there is an rng."""
        if rng is None or not self.pending:
            return self.durable
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        found = bytearray(self.durable)
        for offset, data in self.pending:
            for start in range(0, len(data), SECTOR_BYTES):
                if rng.random() < share:
                    piece = data[start : start + SECTOR_BYTES]
                    found.extend(bytes(max(0, offset + start + len(piece) - len(found))))
                    found[offset + start : offset + start + len(piece)] = piece
        return bytes(found)


class _Change:
    """One name of one directory gets a new meaning (None: removed). It survives only if everything in `needs` does:
    the change of this name before it, and for the old name of a rename the new name."""

    def __init__(self, name: str, node: _Node | None, needs: list[_Change]) -> None:
        self.name = name
        self.node = node
        self.needs = needs
        self.durable = False


class _Directory:
    """Names as seen and as durable, and the changes in between, in order."""

    def __init__(self) -> None:
        self.entries: dict[str, _Node] = {}
        self.durable: dict[str, _Node] = {}
        self.pending: list[_Change] = []

    def change(self, name: str, node: _Node | None, needs: _Change | None = None) -> _Change:
        before = [change for change in self.pending if change.name == name][-1:]
        change = _Change(name, node, [*before, *([needs] if needs else [])])
        _apply(self.entries, change)
        self.pending.append(change)
        return change

    def sync(self) -> None:
        """Make every pending change durable, but the old name of a rename waits for a sync of its new one."""
        held_back: list[_Change] = []
        for change in {change.name: change for change in self.pending}.values():
            if all(need.durable or need in self.pending for need in change.needs):
                _apply(self.durable, change)
            else:
                held_back.append(change)
        for change in self.pending:
            change.durable = change not in held_back
        self.pending = held_back


_Node = _File | _Directory


def _apply(names: dict[str, _Node], change: _Change) -> None:
    if change.node is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.node


class CrashFiles:
    """FileSystem in memory with absolute paths. Safe to use from many threads; steps are numbered from 0."""

    def __init__(self, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self.capacity_bytes = capacity_bytes
        self.log: list[str] = []
        """every step taken, in order"""
        self.dropped: list[str] = []
        """files that were to be read from the medium, in order"""
        self.numbered: list[_Handle] = []
        """open files that were asked for their descriptors"""
        self._root = _Directory()
        self._lock = threading.RLock()
        self._cut_before: int | None = None
        self._failures: dict[int, OSError] = {}
        self._locked: set[int] = set()

    # --- what the tests steer

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.log)

    @property
    def is_cut(self) -> bool:
        """The power is off."""
        return self._cut_before is not None and self.steps >= self._cut_before

    def cut_before(self, step: int) -> None:
        """Let the power go before this step (numbered over the whole life of the twin)."""
        self._cut_before = step

    def cut_now(self) -> None:
        """Let the power go."""
        self._cut_before = self.steps

    def fail_before(self, step: int, error: OSError) -> None:
        """Let this one step fail instead of happening; it counts as taken."""
        self._failures[step] = error

    def survivors(self, *, names: bool = False, seed: int | None = None) -> CrashFiles:
        """A new file system with what is on the medium (see the module's text), all of it durable."""
        with self._lock:
            rng = None if seed is None else random.Random(seed)
            fresh = CrashFiles(self.capacity_bytes)
            chosen: dict[_Change, bool] = {}
            copies: dict[_Node, _Node] = {}
            fresh._root = self._copy_directory(self._root, names, rng, chosen, copies)
            return fresh

    def forget(self) -> None:
        """Let go of all bytes, once nobody looks at this medium any more. (A closed store waits in its loop for some
        seconds, and in cycles for the collector: what thousands of cuts leave came to gigabytes.)"""
        with self._lock:
            for file in _files_below(self._root):
                file.data, file.durable = bytearray(), b""
                file.pending.clear()
            self._root = _Directory()

    def _copy_directory(
        self,
        source: _Directory,
        names: bool,
        rng: random.Random | None,
        chosen: dict[_Change, bool],
        copies: dict[_Node, _Node],
    ) -> _Directory:
        found = dict(source.durable)
        for change in source.pending:
            if names or _survives(change, rng, chosen):
                _apply(found, change)
        fresh = _Directory()
        copies[source] = fresh
        for name, node in found.items():
            if node not in copies:
                if isinstance(node, _Directory):
                    self._copy_directory(node, names, rng, chosen, copies)
                else:
                    copies[node] = _File(node.surviving(rng), node.surviving_times(rng))
            fresh.entries[name] = copies[node]
        fresh.durable = dict(fresh.entries)
        return fresh

    # --- how a step is taken

    def _step(self, text: str) -> None:
        """Called under the lock, before anything is changed."""
        if self.is_cut:
            raise PowerCut(text)
        self.log.append(text)
        failure = self._failures.pop(self.steps - 1, None)
        if failure is not None:
            raise failure

    def _look(self) -> None:
        if self.is_cut:
            raise PowerCut

    def _find(self, path: AnyPath) -> _Node:
        self._look()
        node: _Node = self._root
        for name in _names(path):
            if not isinstance(node, _Directory):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
            if name not in node.entries:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
            node = node.entries[name]
        return node

    def _find_directory(self, path: AnyPath) -> _Directory:
        node = self._find(path)
        if not isinstance(node, _Directory):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
        return node

    def _find_file(self, path: AnyPath) -> _File:
        node = self._find(path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        return node

    def _place(self, path: AnyPath, *, free: bool = False) -> tuple[_Directory, str]:
        """The directory and the last name of a path; FileExistsError when it must be free and is not."""
        *parents, name = _names(path)
        directory = self._find_directory("/" + "/".join(parents))
        if free and name in directory.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(path))
        return directory, name

    def _check_room(self, more_bytes: int) -> None:
        if more_bytes > self._free_bytes():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _free_bytes(self) -> int:
        return max(0, self.capacity_bytes - sum(len(file.data) for file in _files_below(self._root)))

    def sync_file(self, verb: str, path: str, file: _File) -> None:
        """The step of a file's sync, on its own so that a test can show what a forgotten one does."""
        try:
            self._step(f"{verb} {path}")
        except OSError:
            file.pending.clear()
            raise
        file.sync()

    # --- FileSystem

    def create(self, path: AnyPath, mode: int = 0o600) -> OpenFile:
        with self._lock:
            directory, name = self._place(path, free=True)
            self._step(f"create {os.fspath(path)}")
            file = _File()
            directory.change(name, file)
            return _Handle(self, file, os.fspath(path), writable=True)

    def open(self, path: AnyPath, *, writable: bool = False) -> OpenFile:
        with self._lock:
            return _Handle(self, self._find_file(path), os.fspath(path), writable=writable)

    def replace(self, source: AnyPath, target: AnyPath) -> None:
        with self._lock:
            node = self._find(source)
            old_directory, old_name = self._place(source)
            new_directory, new_name = self._place(target)
            self._step(f"replace {os.fspath(source)} {os.fspath(target)}")
            added = new_directory.change(new_name, node)
            old_directory.change(old_name, None, needs=added)

    def link(self, source: AnyPath, target: AnyPath) -> None:
        with self._lock:
            node = self._find_file(source)
            directory, name = self._place(target, free=True)
            self._step(f"link {os.fspath(source)} {os.fspath(target)}")
            directory.change(name, node)

    def unlink(self, path: AnyPath) -> None:
        with self._lock:
            self._find_file(path)
            directory, name = self._place(path)
            self._step(f"unlink {os.fspath(path)}")
            directory.change(name, None)

    def make_directory(self, path: AnyPath, mode: int = 0o700) -> None:
        with self._lock:
            directory, name = self._place(path, free=True)
            self._step(f"mkdir {os.fspath(path)}")
            directory.change(name, _Directory())

    def remove_directory(self, path: AnyPath) -> None:
        with self._lock:
            if self._find_directory(path).entries:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(path))
            directory, name = self._place(path)
            self._step(f"rmdir {os.fspath(path)}")
            directory.change(name, None)

    def fsync_directory(self, path: AnyPath) -> None:
        with self._lock:
            directory = self._find_directory(path)
            self._step(f"fsync_directory {os.fspath(path)}")
            directory.sync()

    def list_directory(self, path: AnyPath) -> Iterator[str]:
        with self._lock:
            names = list(self._find_directory(path).entries)
        yield from names

    def stat(self, path: AnyPath) -> FileStat:
        with self._lock:
            node = self._find(path)
            if isinstance(node, _Directory):
                return FileStat(0, 0, True)
            return _stat(node)

    def space(self, path: AnyPath) -> DiskSpace:
        with self._lock:
            self._find(path)
            return DiskSpace(self.capacity_bytes, self._free_bytes())

    def lock(self, path: AnyPath) -> OpenFile:
        with self._lock:
            directory, name = self._place(path)
            if name not in directory.entries:
                self._step(f"create {os.fspath(path)}")
                directory.change(name, _File())
            file = self._find_file(path)
            if id(file) in self._locked:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), os.fspath(path))
            self._locked.add(id(file))
            return _Handle(self, file, os.fspath(path), writable=True)


class _Handle:
    """OpenFile of the twin; each write and each sync is one step."""

    def __init__(self, files: CrashFiles, file: _File, path: str, *, writable: bool) -> None:
        self._files = files
        self._file = file
        self._path = path
        self._writable = writable
        self._position = 0

    def fileno(self) -> int:
        """Its place among `CrashFiles.numbered`, from now on."""
        if self not in self._files.numbered:
            self._files.numbered.append(self)
        return self._files.numbered.index(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self.pwrite(data, self._position)
        self._position += len(data)

    def pwrite(self, data: Buffer, offset: int) -> None:
        with self._files._lock:
            self._check_writable()
            self._files._step(f"write {self._path}")
            grown = max(0, offset + len(data) - len(self._file.data))
            self._files._check_room(grown)
            self._file.data.extend(bytes(grown))
            self._file.data[offset : offset + len(data)] = data
            self._file.pending.append((offset, bytes(data)))

    def pwritev(self, buffers: Sequence[Buffer], offset: int) -> None:
        self.pwrite(b"".join(buffers), offset)

    def punch(self, offset: int, length: int) -> bool:
        """Zeros that reach the medium as writes do: maybe some of them, before the next sync."""
        with self._files._lock:
            self._check_writable()
            self._files._step(f"punch {self._path}")
            data = bytes(min(length, len(self._file.data) - offset))
            self._file.data[offset : offset + len(data)] = data
            self._file.pending.append((offset, data))
            return True

    def pread(self, length: int, offset: int) -> bytes:
        with self._files._lock:
            self._files._look()
            return bytes(self._file.data[offset : offset + length])

    def pread_into(self, target: bytearray | memoryview, offset: int) -> int:
        data = self.pread(len(target), offset)
        target[: len(data)] = data
        return len(data)

    def preallocate(self, length: int) -> None:
        missing = length - self.size()
        if missing > 0:
            self.pwrite(bytes(missing), self.size())

    def truncate(self, length: int) -> None:
        with self._files._lock:
            self._check_writable()
            self._files._step(f"truncate {self._path}")
            del self._file.data[length:]
            self._file.data.extend(bytes(length - len(self._file.data)))

    def set_times(self, accessed_ns: int, modified_ns: int) -> None:
        with self._files._lock:
            self._files._step(f"set_times {self._path}")
            self._file.times = (accessed_ns, modified_ns)

    def reopen_direct(self) -> AlignedFile:
        return _Handle(self._files, self._file, self._path, writable=True)

    def stat(self) -> FileStat:
        with self._files._lock:
            self._files._look()
            return _stat(self._file)

    def size(self) -> int:
        return self.stat().size

    def drop_cached(self, offset: int = 0, length: int = 0) -> None:
        self._files.dropped.append(self._path)

    def fdatasync(self) -> None:
        self._sync("fdatasync")

    def fsync(self) -> None:
        self._sync("fsync")

    def _sync(self, verb: str) -> None:
        with self._files._lock:
            self._files.sync_file(verb, self._path, self._file)

    def close(self) -> None:
        self._files._locked.discard(id(self._file))

    def _check_writable(self) -> None:
        if not self._writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)


def _names(path: AnyPath) -> list[str]:
    text = os.fspath(path)
    if not text.startswith("/"):
        raise ValueError(f"the twin takes absolute paths, not {text!r}")
    return [name for name in text.split("/") if name]


def _stat(file: _File) -> FileStat:
    accessed_ns, modified_ns = file.times
    return FileStat(len(file.data), modified_ns, False, accessed_ns, id(file), len(file.data))


def _survives(change: _Change, rng: random.Random | None, chosen: dict[_Change, bool]) -> bool:
    """Whether a pending change reached the medium by itself: by chance, and never before what it needs."""
    if rng is None:
        return False
    if change not in chosen:
        needed = all(need.durable or _survives(need, rng, chosen) for need in change.needs)
        chosen[change] = needed and rng.random() < 0.5
    return chosen[change]


def _files_below(directory: _Directory) -> set[_File]:
    found: set[_File] = set()
    for node in directory.entries.values():
        found |= _files_below(node) if isinstance(node, _Directory) else {node}
    return found
