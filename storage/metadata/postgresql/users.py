"""Users and their access keys. Each change raises the configuration sequence in the same transaction."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.base.errors import BucketNotEmpty, LimitExceeded, NoSuchUser, UserAlreadyExists
from storage.metadata.commands import CreateAccessKey, CreateUser, DeleteAccessKey, DeleteUser, PutRootUser
from storage.metadata.postgresql.configuration import raise_configuration_sequence
from storage.metadata.postgresql.database import Database, is_storable
from storage.metadata.postgresql.pool import Connection
from storage.model import AccessKey, User

_USER = "canonical_id, name, display_name, email, is_root, created_ms"
_KEY = "access_key_id, canonical_id, sealed_secret, enabled, created_ms"
_USER_COLUMNS = 6
_INSERT_USER = f"INSERT INTO users ({_USER}) VALUES ($1, $2, $3, $4, $5, coalesce($6::bigint, now_ms()))"
_INSERT_KEY = (
    f"INSERT INTO access_keys ({_KEY}) VALUES ($1, $2, $3, $4, coalesce($5::bigint, now_ms()))"
    " ON CONFLICT DO NOTHING RETURNING 1"
)
_SELECT_USER = f"SELECT {_USER} FROM users WHERE canonical_id = $1"
_SELECT_USER_BY_NAME = f"SELECT {_USER} FROM users WHERE name = $1"
_SELECT_USERS_BY_EMAIL = f"SELECT {_USER} FROM users WHERE email = $1 AND email <> '' LIMIT 2"
_SELECT_ROOT = f"SELECT {_USER} FROM users WHERE is_root"
_SELECT_KEYS_OF_USER = f"SELECT {_KEY} FROM access_keys WHERE canonical_id = $1 ORDER BY access_key_id"
_SELECT_USER_OF_KEY = (
    "SELECT u.canonical_id, u.name, u.display_name, u.email, u.is_root, u.created_ms, k.access_key_id, k.canonical_id,"
    " k.sealed_secret, k.enabled, k.created_ms FROM access_keys k JOIN users u ON u.canonical_id = k.canonical_id"
    " WHERE k.access_key_id = $1"
)
_SELECT_USERS = (
    "SELECT u.canonical_id, u.name, u.display_name, u.email, u.is_root, u.created_ms, k.access_key_id, k.canonical_id,"
    " k.sealed_secret, k.enabled, k.created_ms FROM users u LEFT JOIN access_keys k ON k.canonical_id = u.canonical_id"
    " ORDER BY u.name, k.access_key_id"
)
_SELECT_TAKEN = "SELECT 1 FROM users WHERE name = $1 OR canonical_id = $2"
_SELECT_OWNS_BUCKET = "SELECT 1 FROM buckets WHERE owner_id = $1 LIMIT 1"
_DELETE_USER = "DELETE FROM users WHERE canonical_id = $1"
_DELETE_KEYS_OF_USER = "DELETE FROM access_keys WHERE canonical_id = $1"
_DELETE_KEY = "DELETE FROM access_keys WHERE access_key_id = $1 RETURNING 1"


async def create_user(database: Database, command: CreateUser) -> None:
    """See the command."""
    user, now_ms = command.user, database.now_ms()

    async def create(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        await _insert_user(connection, user, now_ms, "the name or canonical id is taken")
        if command.access_key is not None:
            await _insert_key(connection, command.access_key, now_ms)

    await database.transact(create)


async def put_root_user(database: Database, command: PutRootUser) -> None:
    """Creation times are not compared: they are not part of what the credentials say."""
    user, now_ms = command.user, database.now_ms()

    async def put(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        row = await connection.fetchrow(_SELECT_ROOT)
        if row is not None:
            await connection.execute(_DELETE_KEYS_OF_USER, row[0])
            await connection.execute(_DELETE_USER, row[0])
        await _insert_user(connection, user, now_ms, "another user has the root user's name or canonical id")
        await _insert_key(connection, command.access_key, now_ms)

    if not await _is_root(database, command):
        await database.transact(put)


async def delete_user(database: Database, command: DeleteUser) -> None:
    """See the command."""

    async def delete(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        row = await connection.fetchrow(_SELECT_USER_BY_NAME, command.name)
        if row is None:
            raise NoSuchUser()
        user = User(*row)
        if user.is_root:
            raise LimitExceeded("the root user cannot be deleted")
        if await connection.fetchrow(_SELECT_OWNS_BUCKET, user.canonical_id):
            raise BucketNotEmpty("the user still owns buckets")
        await connection.execute(_DELETE_KEYS_OF_USER, user.canonical_id)
        await connection.execute(_DELETE_USER, user.canonical_id)

    await database.transact(delete)


async def create_access_key(database: Database, command: CreateAccessKey) -> None:
    """See the command."""
    now_ms = database.now_ms()

    async def create(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        if await connection.fetchrow(_SELECT_USER, command.access_key.canonical_id) is None:
            raise NoSuchUser()
        await _insert_key(connection, command.access_key, now_ms)

    await database.transact(create)


async def delete_access_key(database: Database, command: DeleteAccessKey) -> None:
    """An unknown one changes no sequence."""
    if await find_access_key(database, command.access_key_id) is None:
        return

    async def delete(connection: Connection) -> None:
        await raise_configuration_sequence(connection)
        await connection.execute(_DELETE_KEY, command.access_key_id)

    await database.transact(delete)


async def find_access_key(database: Database, access_key_id: str) -> tuple[AccessKey, User] | None:
    """The access key and whose it is, of one snapshot."""
    if not is_storable(access_key_id):
        return None
    rows = await database.read(_SELECT_USER_OF_KEY, access_key_id)
    return _key_and_user(tuple(rows[0])) if rows else None


async def find_user(database: Database, canonical_id: str) -> User | None:
    """See the interface."""
    rows = await database.read(_SELECT_USER, canonical_id) if is_storable(canonical_id) else []
    return User(*rows[0]) if rows else None


async def find_user_by_name(database: Database, name: str) -> User | None:
    """See the interface."""
    rows = await database.read(_SELECT_USER_BY_NAME, name) if is_storable(name) else []
    return User(*rows[0]) if rows else None


async def find_user_by_email(database: Database, email: str) -> User | None:
    """See the interface."""
    rows = await database.read(_SELECT_USERS_BY_EMAIL, email) if is_storable(email) else []
    return User(*rows[0]) if len(rows) == 1 else None


async def list_users(database: Database) -> list[tuple[User, list[AccessKey]]]:
    """By name, in one statement."""
    found: dict[str, tuple[User, list[AccessKey]]] = {}
    for row in map(tuple, await database.read(_SELECT_USERS)):
        _, keys = found.setdefault(row[0], (User(*row[:_USER_COLUMNS]), []))
        if row[_USER_COLUMNS] is not None:
            keys.append(AccessKey(*row[_USER_COLUMNS:]))
    return list(found.values())


async def _is_root(database: Database, command: PutRootUser) -> bool:
    """Whether the records say just this already."""
    for user, keys in await list_users(database):
        if user.is_root:
            wanted = _timeless(command.user), [_timeless(command.access_key)]
            return (_timeless(user), [*map(_timeless, keys)]) == wanted
    return False


async def _insert_user(connection: Connection, user: User, now_ms: int | None, taken: str) -> None:
    if await connection.fetchrow(_SELECT_TAKEN, user.name, user.canonical_id):
        raise UserAlreadyExists(taken)
    row = (user.canonical_id, user.name, user.display_name, user.email, user.is_root)
    await connection.execute(_INSERT_USER, *row, user.created_ms or now_ms)


async def _insert_key(connection: Connection, access_key: AccessKey, now_ms: int | None) -> None:
    row = (access_key.access_key_id, access_key.canonical_id, access_key.sealed_secret, access_key.enabled)
    if not await connection.fetchrow(_INSERT_KEY, *row, access_key.created_ms or now_ms):
        raise UserAlreadyExists("the access key id is taken")


def _key_and_user(row: tuple[Any, ...]) -> tuple[AccessKey, User]:
    return AccessKey(*row[_USER_COLUMNS:]), User(*row[:_USER_COLUMNS])


def _timeless(record: User | AccessKey) -> User | AccessKey:
    return msgspec.structs.replace(record, created_ms=0)
