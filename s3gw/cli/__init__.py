"""`frostbyte …`: the command line. Each command is a composition root: only here is anything built across packages.

The modules of the supervisor are in this package too, and want none of the command line in memory: it is imported when
it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from storage.base.errors import FrostbyteError


def main() -> None:
    """The console script. What goes wrong is one line on stderr and exit status 1."""
    early = importlib.import_module("s3gw.cli.forks") if sys.argv[1:2] == ["up"] else None
    try:
        if early is not None:
            early.begin_early()
        importlib.import_module("s3gw.cli.application").load_commands(sys.argv[1] if len(sys.argv) > 1 else "")()
    except OSError as error:
        fail(describe_os_error(error))
    except (FrostbyteError, ValueError) as error:
        fail(str(error))
    finally:
        if early is not None:
            early.end_early()


def describe_os_error(error: OSError) -> str:
    """One line, with the path where there is one."""
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def fail(reason: str) -> NoReturn:
    """One line, whatever is in it."""
    print("frostbyte:", " ".join(reason.split()), file=sys.stderr)
    sys.exit(1)
