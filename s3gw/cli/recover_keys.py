"""The keys that a recovery works with, and how they come into the new directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from s3gw.cli.home import FILES, SMALL_FILE_BYTES_MAX, Credentials
from s3gw.config import ConfigError
from storage.base.clock import SystemClock
from storage.base.errors import SealBroken, UnknownKeyId
from storage.base.files import fetch_file, make_directories, store_file
from storage.base.key_files import store_internal_key
from storage.base.secret_variables import MASTER_KEY_VARIABLE
from storage.crypto.keyring import Keyring
from storage.crypto.master_key import open_master_keys
from storage.metadata.sqlite.database import connect_reader

_SELECT_ROOT_KEY = (
    "SELECT k.access_key_id, k.sealed_secret FROM access_keys k JOIN users u ON u.canonical_id = k.canonical_id"
    " WHERE u.is_root = 1 ORDER BY k.created_ms DESC LIMIT 1"
)


class RecoveryKeys(NamedTuple):
    """master_key: its file, None where the environment has it."""

    cluster_id: str
    keyring: Keyring
    directory: Path
    master_key: Path | None

    def require_internal_key(self) -> bytes:
        """ConfigError for a keyring that is older than its copy there."""
        found = self.keyring.find_internal_key()
        if found is None:
            raise ConfigError(f"{self.directory} holds no internal key: stop the datanodes and name their directories")
        return found


def open_recovery_keys(
    keyring: Path, master_key: Path, cluster_id: str, environment: Mapping[str, str]
) -> RecoveryKeys:
    """Proven to fit together. ConfigError, UnknownKeyId or ValueError in one line."""
    if not keyring.is_dir():
        raise ConfigError(f"there is no keyring at {keyring}: name it with --keyring")
    in_environment = bool(environment.get(MASTER_KEY_VARIABLE))
    source = open_master_keys(FILES, master_key, environment, make=False)
    opened = Keyring(FILES, keyring, bytes.fromhex(cluster_id), source, SystemClock())
    opened.open(make=False)
    return RecoveryKeys(cluster_id, opened, keyring, None if in_environment else master_key)


def copy_keys(keys: RecoveryKeys, home: Path) -> None:
    """What is not there already, each file whole and durable. ConfigError where another one is."""
    make_directories(FILES, home / "keyring")
    for path in sorted(keys.directory.glob("*.json")):
        _copy(path, home / "keyring" / path.name)
    if keys.master_key is not None:
        for path in (keys.master_key, keys.master_key.with_name(f"{keys.master_key.name}.next")):
            if path.exists():
                _copy(path, home / f"master.key{path.name.removeprefix(keys.master_key.name)}")
    internal_key = keys.keyring.find_internal_key()
    if internal_key is not None and not (home / "internal.key").exists():
        store_internal_key(FILES, home / "internal.key", internal_key)


def find_root_credentials(database: Path, keyring: Keyring) -> Credentials | None:
    """As the records and the keyring have them; None where there are none that open."""
    with closing(connect_reader(database)) as connection:
        row = connection.execute(_SELECT_ROOT_KEY).fetchone()
    if row is None:
        return None
    try:
        return Credentials(row[0], keyring.open_access_secret(row[0], row[1]))
    except (SealBroken, UnknownKeyId, sqlite3.Error):
        return None


def _copy(source: Path, target: Path) -> None:
    content = fetch_file(FILES, source, SMALL_FILE_BYTES_MAX)
    try:
        store_file(FILES, target, content, exclusive=True)
    except FileExistsError:
        if fetch_file(FILES, target, SMALL_FILE_BYTES_MAX) != content:
            raise ConfigError(f"{target} is there already, and is not {source}") from None
