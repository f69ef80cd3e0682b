"""`frostbyte user create|list|delete`: accounts, against a running or a stopped server."""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any

import typer

from s3gw.cli.home import make_access_key_id, make_secret_access_key, read_cluster_id
from s3gw.cli.offline import open_records
from s3gw.cli.options import ConfigOption, DataOption, find_config, open_keyring_of, run
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import Config, ConfigError
from storage.base.clock import SystemClock
from storage.base.errors import NoSuchUser
from storage.metadata.commands import CreateUser, DeleteUser
from storage.model import AccessKey, User

app = typer.Typer(no_args_is_help=True, help="Accounts and their access keys.")

_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}\Z")
_CANONICAL_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9_-]{3,128}\Z")
SECRET_CHARACTERS_MIN = 8
SECRET_CHARACTERS_MAX = 256
TEXT_CHARACTERS_MAX = 256


@app.command("create")
def create(
    name: str,
    canonical_id: Annotated[str, typer.Option(help="64 hex digits are made when none is given.")] = "",
    display_name: Annotated[str, typer.Option()] = "",
    email: Annotated[str, typer.Option()] = "",
    access_key_id: Annotated[str, typer.Option()] = "",
    secret_access_key: Annotated[str, typer.Option()] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a user with one access key and print the credentials; they are shown this once."""
    settings = find_config(data, config)
    credentials = (access_key_id or make_access_key_id(), secret_access_key or make_secret_access_key())
    _check(name, canonical_id, display_name, email, *credentials, given=(access_key_id, secret_access_key))
    now_ms = SystemClock().now_ms()
    user = User(canonical_id or secrets.token_hex(32), name, display_name or name, email, created_ms=now_ms)
    run(_create(settings, user, *credentials))
    document = {**_describe(user), "access_key_id": credentials[0], "secret_access_key": credentials[1]}
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        for field, value in document.items():
            print(f"{field:18} {value}")


@app.command("list")
def list_users(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Every user with its access key ids."""
    users = run(_list(find_config(data, config)))
    if as_json:
        print(json.dumps([{**_describe(user), "access_key_ids": ids} for user, ids in users], indent=2))
        return
    table = make_table("name", "canonical id", "display name", "email", "access key ids")
    for user, ids in users:
        add_row(table, user.name, user.canonical_id, user.display_name, user.email, "\n".join(ids))
    show(table)


@app.command("delete")
def delete(name: str, data: DataOption = None, config: ConfigOption = None) -> None:
    """Remove a user that owns no bucket, and its access keys."""
    run(_delete(find_config(data, config), name))


async def _create(config: Config, user: User, access_key_id: str, secret_access_key: str) -> None:
    keyring = open_keyring_of(config.home)
    sealed = keyring.seal_access_secret(access_key_id, secret_access_key)
    access_key = AccessKey(access_key_id, user.canonical_id, sealed, created_ms=user.created_ms)
    async with open_records(config) as metadata:
        await metadata.apply(CreateUser(user, access_key))


async def _list(config: Config) -> list[tuple[User, list[str]]]:
    read_cluster_id(config.home)
    async with open_records(config) as metadata:
        return [(user, [item.access_key_id for item in items]) for user, items in await metadata.list_users()]


async def _delete(config: Config, name: str) -> None:
    read_cluster_id(config.home)
    async with open_records(config) as metadata:
        try:
            await metadata.apply(DeleteUser(name))
        except NoSuchUser:
            raise ConfigError(f"there is no user {name}") from None


def _describe(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "canonical_id": user.canonical_id,
        "display_name": user.display_name,
        "email": user.email,
    }


def _check(
    name: str,
    canonical_id: str,
    display_name: str,
    email: str,
    access_key_id: str,
    secret_access_key: str,
    given: tuple[str, str],
) -> None:
    if bool(given[0]) != bool(given[1]):
        raise ConfigError("--access-key-id and --secret-access-key go together")
    if not _NAME.match(name):
        raise ConfigError("a user name has 1 to 64 letters, digits and any of + = , . @ _ -")
    if canonical_id and not _CANONICAL_ID.match(canonical_id):
        raise ConfigError("a canonical id has 1 to 128 visible ASCII characters")
    if not _ACCESS_KEY_ID.match(access_key_id):
        raise ConfigError("an access key id has 3 to 128 letters, digits, dashes and underscores")
    if not SECRET_CHARACTERS_MIN <= len(secret_access_key) <= SECRET_CHARACTERS_MAX:
        raise ConfigError(f"a secret has {SECRET_CHARACTERS_MIN} to {SECRET_CHARACTERS_MAX} characters")
    if max(len(display_name), len(email)) > TEXT_CHARACTERS_MAX:
        raise ConfigError(f"display name and email have at most {TEXT_CHARACTERS_MAX} characters")
