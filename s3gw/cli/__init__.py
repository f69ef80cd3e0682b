"""`frostbyte …`: the command line. Each command is a composition root: only here is anything built across packages."""

from __future__ import annotations

import sys
from typing import NoReturn

from s3gw.cli.application import load_commands
from s3gw.cli.home import describe_os_error
from storage.base.errors import FrostbyteError


def main() -> None:
    """The console script. What goes wrong is one line on stderr and exit status 1."""
    try:
        load_commands(sys.argv[1] if len(sys.argv) > 1 else "")()
    except OSError as error:
        fail(describe_os_error(error))
    except (FrostbyteError, ValueError) as error:
        fail(str(error))


def fail(reason: str) -> NoReturn:
    """One line, whatever is in it."""
    print("frostbyte:", " ".join(reason.split()), file=sys.stderr)
    sys.exit(1)
