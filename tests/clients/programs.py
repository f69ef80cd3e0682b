"""Where the programs of real clients are, and running one of them to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.clients.warm_program import is_own_aws, warm_program

PROGRAM_TIMEOUT_S = 110
"""Below pytest's own limit, so that the failure names the command."""

DEBIAN_PACKAGES = {"s3fs": "s3fs", "fusermount3": "fuse3", "curl": "curl", "wrk": "wrk", "diff": "diffutils"}


class ProgramFailed(AssertionError):
    """A client ended with another status than it should; the message carries what it printed."""


def find_program(name: str) -> str | None:
    """Path of a program: beside the running interpreter first, then on PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(name)


def explain_missing(name: str) -> str | None:
    """One line that says why this client cannot run here, or None when it can."""
    if name == "fuse":
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            return "/dev/fuse is missing or not accessible"
        return explain_missing("fusermount3")
    if find_program(name) is None:
        package = DEBIAN_PACKAGES.get(name)
        return f"{name} is not installed (Debian package {package})" if package else f"{name} is not installed"
    return None


def run_program(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    statuses: Sequence[int] = (0,),
    timeout_s: float = PROGRAM_TIMEOUT_S,
    in_fork: bool = False,
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end. Raises ProgramFailed on a status that is not in `statuses` and at the time limit.

    in_fork: of an aws command line that is loaded already, where that can be; it is no child of this process then."""
    words = [str(word) for word in command]
    try:
        if in_fork and environment is not None and is_own_aws(words[0]):
            done = warm_program("aws").run(words, environment, stdin=stdin or b"", directory=cwd, timeout_s=timeout_s)
        else:
            done = subprocess.run(
                words, env=environment, cwd=cwd, input=stdin or b"", capture_output=True, timeout=timeout_s, check=False
            )
    except subprocess.TimeoutExpired as error:
        printed = (error.stdout or b"") + (error.stderr or b"")
        raise ProgramFailed(f"no end after {timeout_s} s: {' '.join(words)}\n{_shorten(printed)}") from error
    if done.returncode not in statuses:
        printed = done.stdout + done.stderr
        raise ProgramFailed(f"status {done.returncode}: {' '.join(words)}\n{_shorten(printed)}")
    return done


def _shorten(printed: bytes, limit: int = 4000) -> str:
    text = printed.decode(errors="replace")
    return text if len(text) <= limit else f"{text[: limit // 2]}\n…\n{text[-limit // 2 :]}"
