"""`python -m s3gw --config FILE --fd N [--board-fd M --worker I]`: one gateway worker, accepting on an inherited
listening socket; beside others on the same one, it also inherits their board (s3gw.acceptor).

SIGTERM drains: requests under way are answered, then it exits 0.
"""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path

import uvloop

from s3gw.acceptor import Board
from s3gw.worker import run_worker
from s3gw.worker_config import load_worker_config
from storage.base.arguments import Option, parse_options
from storage.base.core_dumps import forbid_core_dumps
from storage.base.errors import FrostbyteError
from storage.base.log import configure_logging
from storage.base.open_files import raise_open_files_limit

_OPTIONS = (
    Option("--config", Path, "the worker's config.json"),
    Option("--fd", int, "file descriptor of a listening socket"),
    Option("--board-fd", int, "file descriptor of the board of all workers on that socket", required=False),
    Option("--worker", int, "this worker's place on the board, from 0", required=False, default=0),
)

_log = logging.getLogger("s3gw")


def main() -> int:
    """Exit status 0 after a drain; 1, with one line in the log, when it cannot start."""
    arguments = parse_options("python -m s3gw", __doc__, _OPTIONS)
    configure_logging("gateway")
    raise_open_files_limit()
    forbid_core_dumps()
    try:
        config = load_worker_config(arguments.config)
        board = None if arguments.board_fd is None else Board(arguments.board_fd, arguments.worker)
        uvloop.run(run_worker(config, socket.socket(fileno=arguments.fd), board))
    except (FrostbyteError, ValueError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
