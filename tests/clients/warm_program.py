"""Programs in Python without the time that they take to load: each command is a fork of a process that has done so.

It runs the same code with the words, environment, directory and pipes that it would be started with. Tests that look at
the start itself, and roles, which go on, start the program.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

SERVER = Path(__file__).with_name("warm_server.py")
ANSWER_BYTES_MAX = 64
END_TIMEOUT_S = 30.0
PIECE_BYTES = 1 << 16


class WarmProgram:
    """The process that forks; see warm_server.PROGRAMS for the names. One command at a time."""

    def __init__(self, name: str) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-P", str(SERVER), str(descriptor), name]
            self._process = subprocess.Popen(command, pass_fds=(descriptor,), stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """Its orders end, and so does it."""
        self._orders.close()
        self._process.wait(END_TIMEOUT_S)

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        *,
        stdin: bytes = b"",
        directory: Path | None = None,
        timeout_s: float,
    ) -> subprocess.CompletedProcess[bytes]:
        """As subprocess.run does, with TimeoutExpired; words: from the program's own name on."""
        order = {"words": list(words), "environment": dict(environment), "directory": directory and str(directory)}
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe(), os.pipe()
        theirs = [in_read, out_write, err_write]
        socket.send_fds(self._orders, [json.dumps(order).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        pid = int(self._receive())
        limit = threading.Timer(timeout_s, os.kill, (pid, signal.SIGKILL))
        limit.start()
        with ThreadPoolExecutor(3) as streams:
            streams.submit(_write_all, in_write, stdin)
            out, err = streams.submit(_read_all, out_read), streams.submit(_read_all, err_read)
            status = int(self._receive())
            is_late = limit.finished.is_set()
            limit.cancel()
        if is_late:
            raise subprocess.TimeoutExpired(order["words"], timeout_s, out.result(), err.result())
        return subprocess.CompletedProcess(order["words"], status, out.result(), err.result())

    def _receive(self) -> bytes:
        answer = self._orders.recv(ANSWER_BYTES_MAX)
        assert answer, "the program does not load"
        return answer


@cache
def warm_program(name: str) -> WarmProgram:
    """The one of this process, from the first command on."""
    program = WarmProgram(name)
    atexit.register(program.close)
    return program


def is_own_aws(program: str) -> bool:
    """Whether this is the aws command line that this interpreter can load."""
    return Path(program) == Path(sys.executable).with_name("aws") and importlib.util.find_spec("awscli") is not None


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        with open(descriptor, "wb", buffering=0) as pipe:
            for start in range(0, len(data), PIECE_BYTES):
                pipe.write(data[start : start + PIECE_BYTES])
    except BrokenPipeError:  # it wanted no more
        pass


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as pipe:
        return pipe.read()
