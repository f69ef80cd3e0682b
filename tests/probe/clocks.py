"""A wall clock that jumps beneath real processes: wall_clock.c, compiled on the spot and loaded into each of them.
(Debian's libfaketime 0.9.10 changes waits by the steady clock as well, so that processes hang that would not.)"""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("wall_clock.c")
COMPILE_TIMEOUT_S = 60


class WallClock:
    """environment: for the processes. `jump` moves the clock for all of them at once."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "wall-clock-offset"
        library = directory / "wall_clock.so"
        self._file.write_bytes(bytes(8))
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=COMPILE_TIMEOUT_S)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET_FILE": str(self._file)}

    def jump(self, offset_s: int) -> None:
        """So many seconds from the right time, from now on."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", offset_s * 1_000_000_000))


def explain_missing() -> str | None:
    """Why no clock can be moved here; None when it can."""
    return None if shutil.which("cc") else "there is no C compiler (cc)"
