"""A FUSE file system kept in the foreground, so that it is ended by its own process id."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clients.programs import ProgramFailed, find_program

MOUNT_DEADLINE_S = 60
UNMOUNT_DEADLINE_S = 60
POLL_INTERVAL_S = 0.05


@contextmanager
def mounted(command: Sequence[str], where: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Run `command` (which must stay in the foreground), wait for the mount, and unmount it at the end.

    Unmounting waits for the process: what it had buffered has been sent then."""
    where.mkdir(exist_ok=True)
    log_path = where.with_name(where.name + ".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(list(command), env=dict(environment), stdout=log, stderr=log)
        try:
            _wait_for_mount(process, where, log_path)
            yield where
        finally:
            _unmount(process, where)


def _wait_for_mount(process: subprocess.Popen[bytes], where: Path, log_path: Path) -> None:
    deadline = time.monotonic() + MOUNT_DEADLINE_S
    while not os.path.ismount(where):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ProgramFailed(f"no mount by {process.args!r}:\n{log_path.read_text(errors='replace')[-4000:]}")
        time.sleep(POLL_INTERVAL_S)


def _unmount(process: subprocess.Popen[bytes], where: Path) -> None:
    program = find_program("fusermount3") or "fusermount3"
    deadline = time.monotonic() + UNMOUNT_DEADLINE_S
    while os.path.ismount(where) and time.monotonic() < deadline:  # busy for a moment after the last close
        subprocess.run([program, "-u", str(where)], check=False, capture_output=True)
        if os.path.ismount(where):
            time.sleep(POLL_INTERVAL_S)
    try:
        process.wait(max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        subprocess.run([program, "-uz", str(where)], check=False, capture_output=True)
        raise ProgramFailed(f"{process.args!r} did not end after unmounting") from None
