"""The records of a data directory for a command line: through the running owner if there is one, else as the owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from s3gw.cli.home import Credentials, Home, lock_home, root_canonical_id, socket_directory
from s3gw.config import ConfigError
from storage.base.clock import SystemClock
from storage.base.errors import Unavailable
from storage.crypto.keyring import Keyring
from storage.metadata.commands import PutRootUser
from storage.metadata.interface import Metadata
from storage.metadata.sqlite.open import open_metadata, open_owned_metadata
from storage.metadata.sqlite.reader import SqliteMetadata
from storage.model import AccessKey, User

CONNECT_DEADLINE_S = 5.0


@asynccontextmanager
async def open_records(home: Path) -> AsyncIterator[Metadata]:
    """Unavailable when a running owner does not answer."""
    async with AsyncExitStack() as opened:
        metadata = await _open_stopped(home, opened) or await open_metadata(
            home / "metadata", socket_directory(home) / "metadata.sock", CONNECT_DEADLINE_S
        )
        opened.push_async_callback(metadata.close)
        yield metadata


async def _open_stopped(home: Path, opened: AsyncExitStack) -> SqliteMetadata | None:
    """As the owner; None while a server or a metadata process of its own is."""
    try:
        opened.enter_context(lock_home(home))
        return await open_owned_metadata(home / "metadata")
    except (ConfigError, Unavailable):
        return None


def put_root_user(home: Home) -> None:
    """Before anything else runs: migrate the records and make the root user what the credentials say."""
    asyncio.run(_put_root_user(home))


async def _put_root_user(home: Home) -> None:
    metadata = await open_owned_metadata(home.metadata)
    try:
        user, access_key = make_root(home.cluster_id, home.keyring, home.credentials)
        known = await metadata.find_access_key(access_key.access_key_id)
        if known is not None and known[1].is_root and _secret_is(home.keyring, known[0], home.credentials):
            return
        await metadata.apply(PutRootUser(user, access_key))
    finally:
        await metadata.close()


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
