"""The records of a data directory for a command line, whichever engine holds them.

SQLite: through the running owner if there is one, else as the owner. PostgreSQL: as every other process.

A data directory remembers which engine holds its records. Without that, a start that was not told of PostgreSQL would
make an empty SQLite database, or find one that was left behind, and the sweeper would take every chunk that is not
recorded there for an orphan.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from cluster.registry.config import load_config as load_master_config
from s3gw.cli.home import (
    MASTER_FILE,
    Credentials,
    Home,
    complete_settings,
    lock_home,
    read_engine,
    read_recorded_engine,
    record_engine,
    root_canonical_id,
    socket_directory,
)
from s3gw.config import Config, ConfigError
from storage.base.clock import SystemClock
from storage.base.errors import Unavailable
from storage.crypto.keyring import Keyring
from storage.metadata.commands import PutRootUser
from storage.metadata.interface import Metadata
from storage.metadata.open import open_metadata
from storage.metadata.settings import SQLITE, MetadataSettings
from storage.metadata.sqlite.database import DATABASE_NAME
from storage.metadata.sqlite.moved import mark_moved
from storage.metadata.sqlite.open import open_owned_metadata
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.model import AccessKey, User

CONNECT_DEADLINE_S = 5.0
START_DEADLINE_S = 10.0
"""a machine that is starting may start its database at the same time"""


@asynccontextmanager
async def open_records(config: Config) -> AsyncIterator[Metadata]:
    """Of an existing data directory. ConfigError; Unavailable when a running owner or the database does not answer."""
    settings = locate_records(config)
    async with AsyncExitStack() as opened:
        metadata = await _open_stopped(config.home, settings, opened) or await open_metadata(
            settings, deadline_s=CONNECT_DEADLINE_S
        )
        opened.push_async_callback(metadata.close)
        yield metadata


def locate_records(config: Config) -> MetadataSettings:
    """As the settings say, or, where they say nothing of PostgreSQL, as the last start was told. ConfigError."""
    home, settings = config.home, config.metadata
    recorded = read_engine(home)
    last_start = home / "run" / MASTER_FILE
    if settings.engine == SQLITE != recorded and recorded and last_start.exists():
        settings = load_master_config(last_start).metadata
    require_engine(home, settings, recorded)
    return complete_settings(settings, home, socket_directory(home))


def require_engine(home: Path, settings: MetadataSettings, recorded: str) -> None:
    """ConfigError for another engine than the one that holds the records."""
    if recorded and settings.engine != recorded:
        raise ConfigError(
            f"the records of {home} are in {recorded}, not in {settings.engine}: name it under `metadata` in"
            " config.json, or move them with `frostbyte metadata copy`"
        )


async def _open_stopped(home: Path, settings: MetadataSettings, opened: AsyncExitStack) -> SqliteMetadata | None:
    """As the owner; None while a server or a metadata process of its own is, or where there is none."""
    if settings.engine != SQLITE:
        return None
    try:
        opened.enter_context(lock_home(home))
        return await open_owned_metadata(Path(settings.path))
    except (ConfigError, Unavailable):
        return None


def put_root_user(home: Home) -> tuple[str, ...]:
    """Before anything else runs: migrate the records and make the root user what the credentials say. → what an
    acknowledged write does not survive there, in sentences. ConfigError for records that are not this directory's."""
    require_engine(home.config.home, home.records, read_engine(home.config.home))
    return asyncio.run(_put_root_user(home))


async def _put_root_user(home: Home) -> tuple[str, ...]:
    if home.records.engine == SQLITE:
        metadata: Metadata = await open_owned_metadata(home.metadata)
    else:
        metadata = await open_metadata(home.records, deadline_s=START_DEADLINE_S)
    try:
        user, access_key = make_root(home.cluster_id, home.keyring, home.credentials)
        if await metadata.find_user(user.canonical_id) is None:
            await _require_own(home, metadata)
        known = await metadata.find_access_key(access_key.access_key_id)
        if known is None or not known[1].is_root or not _secret_is(home.keyring, known[0], home.credentials):
            await metadata.apply(PutRootUser(user, access_key))
        record_engine(home.config.home, home.records.engine)
        if home.records.engine != SQLITE and (home.metadata / DATABASE_NAME).exists():
            mark_moved(home.metadata, home.records.engine)  # a copy that was cut short right at its end
        return metadata.loss_window
    finally:
        await metadata.close()


async def _require_own(home: Home, metadata: Metadata) -> None:
    """ConfigError for records without this cluster's root user, unless they are new."""
    if any(user.is_root for user, _ in await metadata.list_users()):
        raise ConfigError(f"the {home.records.engine} database holds the records of another cluster")
    if read_recorded_engine(home.config.home):
        raise ConfigError(
            f"the records of {home.config.home} are gone: the {home.records.engine} database is empty. Its chunks would"
            " be swept, so nothing is started. `frostbyte recover` makes them again out of what the datanodes keep"
        )


def make_root(cluster_id: str, keyring: Keyring, credentials: Credentials) -> tuple[User, AccessKey]:
    """The records of the root user."""
    now_ms = SystemClock().now_ms()
    canonical_id = root_canonical_id(cluster_id)
    sealed = keyring.seal_access_secret(credentials.access_key_id, credentials.secret_access_key)
    user = User(canonical_id, "root", "root", is_root=True, created_ms=now_ms)
    return user, AccessKey(credentials.access_key_id, canonical_id, sealed, created_ms=now_ms)


def _secret_is(keyring: Keyring, access_key: AccessKey, credentials: Credentials) -> bool:
    opened = keyring.open_access_secret(access_key.access_key_id, access_key.sealed_secret)
    return opened == credentials.secret_access_key
