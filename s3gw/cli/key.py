"""`frostbyte key …`: the keyring. Named (KMS) keys and the master key."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Keys of the keyring.")


@app.callback()
def keys() -> None:
    """Keys of the keyring."""
