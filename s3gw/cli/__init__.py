"""`frostbyte …`: the command line. Each command is a composition root: only here is anything built across packages."""

from __future__ import annotations

import sys

from s3gw.cli.application import app
from storage.base.errors import FrostbyteError


def main() -> None:
    """The console script. What goes wrong is one line on stderr and exit status 1."""
    try:
        app()
    except (FrostbyteError, ValueError, OSError) as error:
        print(f"frostbyte: {error}", file=sys.stderr)
        sys.exit(1)
