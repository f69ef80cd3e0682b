"""Small file systems for tests that fill, freeze and thaw the disk of one process. They need root and mount(8)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size_mib: int) -> Iterator[None]:
    """A tmpfs at `path`, empty at first, gone at the end. Skips the test where it cannot be mounted."""
    path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk is a tmpfs, which only root can mount")
    options = f"size={size_mib}m,mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "frostbyte-test", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """The directories in `path` are read-only, as a disk with errors turns: each becomes a read-only mount of itself
    (the whole could not be: a process that has a lock file open for writing forbids it). What is open for writing
    stays so, other than on a disk with errors: see is_written_to."""
    folders = sorted(it for it in path.iterdir() if it.is_dir())
    try:
        for folder in folders:
            subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        for folder in folders:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def is_written_to(path: Path) -> bool:
    """Whether any process has a file below `path` open for writing."""
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it was closed, or its process ended
            if opened.readlink().is_relative_to(path) and _open_flags(opened) & os.O_ACCMODE != os.O_RDONLY:
                return True
    return False


def _open_flags(opened: Path) -> int:
    lines = (opened.parents[1] / "fdinfo" / opened.name).read_text().splitlines()
    return next(int(line.split()[1], 8) for line in lines if line.startswith("flags:"))


def fill(path: Path, leave_mib: int = 0) -> Path:
    """Take all of the free space but this; the file to remove."""
    ballast = path / "ballast"
    status = os.statvfs(path)
    left = status.f_bavail * status.f_frsize - (leave_mib << 20)
    with ballast.open("wb", buffering=0) as file:
        try:
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 20)))
        except OSError:
            pass
    return ballast
