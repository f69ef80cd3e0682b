"""`frostbyte key …`: the keyring, against a running or a stopped server. Named (KMS) keys and the master key."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from s3gw.cli.formats import format_time
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, find_home, open_keyring_of
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import ConfigError
from storage.base.secret_variables import MASTER_KEY_VARIABLE, PREVIOUS_VARIABLE
from storage.crypto.keyring import CACHE_TTL_S, KeyFile
from storage.crypto.keys import named_key_id

app = typer.Typer(no_args_is_help=True, help="Keys of the keyring.")


@app.command("create")
def create(name: str, as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Make a named key: 1 to 64 letters, digits and any of . _ - with a letter or digit first."""
    keyring = open_keyring_of(find_home(data, config))
    key_id = keyring.create_named_key(name)
    print(json.dumps({"name": name, "key_id": key_id}) if as_json else key_id)


@app.command("list")
def list_keys(as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Every named key and every bucket's key. Nothing secret is shown."""
    keyring = open_keyring_of(find_home(data, config))
    found = sorted((_describe(file) for file in keyring.list_key_files()), key=lambda item: item["key_id"])
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = make_table("id", "versions", "master key", "created")
    for item in found:
        created = format_time(item["created_ms"])
        add_row(table, item["key_id"], str(item["versions"]), "\n".join(item["master_key_ids"]), created)
    show(table)


@app.command("rotate")
def rotate(
    name: Annotated[str, typer.Argument(help="A named key.")] = "",
    master: Annotated[bool, typer.Option("--master", help="Wrap every key with a new master key.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a named key a new version, or the keyring a new master key. What is sealed stays readable."""
    if bool(name) == master:
        raise ConfigError("give the name of a key, or --master")
    home = find_home(data, config)
    keyring = open_keyring_of(home)
    if master:
        changed = keyring.rotate_master()
        _tell_rotated(changed, home)
        return
    version = keyring.add_version(named_key_id(name))
    print(f"{name} seals with version {version}, in running servers within {CACHE_TTL_S:g} s")


def _tell_rotated(changed: int, home: Path) -> None:
    print(f"{changed} keys are wrapped by a new master key")
    if os.environ.get(MASTER_KEY_VARIABLE):
        print(f"start servers with {MASTER_KEY_VARIABLE} alone from now on; {PREVIOUS_VARIABLE} can be taken away")
    else:
        print("running servers follow by themselves")
        print(f"keep a copy of {home / 'master.key'} elsewhere; the old one opens old copies of the keyring only")


def _describe(file: KeyFile) -> dict[str, Any]:
    return {
        "key_id": file.key_id,
        "versions": len(file.versions),
        "version": file.versions[-1].version,
        "master_key_ids": sorted({version.master_key_id for version in file.versions}),
        "created_ms": file.created_ms,
    }
