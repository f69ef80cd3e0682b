"""`python -P warm_server.py FD NAME`: loads a Python program once, and runs each command in a fork of that.

Loading costs four times what most commands do. Orders come over the socket FD, as JSON {words, environment, directory}
beside the three standard streams. For each the process id is told, and its status when it has ended. It is no module
of a package, as the programs call themselves by that otherwise.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

ORDER_BYTES_MAX = 1 << 20
STREAMS = 3
DATA_PATH = "AWS_DATA_PATH"
"""set where the aws command line is imported"""


def load_aws() -> Callable[[], Any]:
    """With what a command for S3 needs of it."""
    driver = importlib.import_module("awscli.clidriver")
    session = driver.create_clidriver().session
    session.create_client("s3", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
    return driver.main  # type: ignore[no-any-return]


def load_frostbyte() -> Callable[[], Any]:
    """With all its commands."""
    importlib.import_module("s3gw.cli.application").load_commands("")
    return importlib.import_module("s3gw.cli").main  # type: ignore[no-any-return]


PROGRAMS = {"aws": load_aws, "frostbyte": load_frostbyte}


def serve(orders: socket.socket, program: Callable[[], Any]) -> None:
    """Until nobody is at the other end."""
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(orders, ORDER_BYTES_MAX, STREAMS)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            orders.close()
            _begin(streams, **json.loads(data))
            _end(program)
        for stream in streams:
            os.close(stream)
        orders.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        orders.send(b"%d" % os.waitstatus_to_exitcode(status))


def _begin(streams: list[int], words: list[str], environment: dict[str, str], directory: str | None) -> None:
    """What the kernel gives to a program that is started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    loaded = {name: os.environ[name] for name in (DATA_PATH,) if name in os.environ}
    os.environ.clear()
    os.environ.update(environment | loaded)
    if directory is not None:
        os.chdir(directory)
    sys.argv = words


def _end(program: Callable[[], Any]) -> NoReturn:
    """As the interpreter ends, but for taking everything apart: that would copy every page that was loaded."""
    status: object = 1
    try:
        status = program()
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 - the edge of the process
        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as inherited:
        serve(inherited, PROGRAMS[sys.argv[2]]())
