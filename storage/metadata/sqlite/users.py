"""Users and their access keys. Each change raises the configuration sequence in the same transaction."""

from __future__ import annotations

from typing import Any

import msgspec

from storage.base.errors import BucketNotEmpty, LimitExceeded, NoSuchUser, UserAlreadyExists
from storage.metadata.commands import CreateAccessKey, CreateUser, DeleteAccessKey, DeleteUser, PutRootUser
from storage.metadata.sqlite.configuration import raise_configuration_sequence
from storage.metadata.sqlite.database import Execute, Transaction
from storage.model import AccessKey, User

_USER = "canonical_id, name, display_name, email, is_root, created_ms"
_KEY = "access_key_id, canonical_id, sealed_secret, enabled, created_ms"
_INSERT_USER = f"INSERT INTO users ({_USER}) VALUES (?, ?, ?, ?, ?, ?)"
_INSERT_KEY = f"INSERT INTO access_keys ({_KEY}) VALUES (?, ?, ?, ?, ?)"
_SELECT_USER = f"SELECT {_USER} FROM users WHERE canonical_id = ?"
_SELECT_USER_BY_NAME = f"SELECT {_USER} FROM users WHERE name = ?"
_SELECT_USERS_BY_EMAIL = f"SELECT {_USER} FROM users WHERE email = ? AND email <> '' LIMIT 2"
_SELECT_ROOT = f"SELECT {_USER} FROM users WHERE is_root = 1"
_SELECT_USERS = f"SELECT {_USER} FROM users ORDER BY name"
_SELECT_KEY = f"SELECT {_KEY} FROM access_keys WHERE access_key_id = ?"
_SELECT_KEYS = f"SELECT {_KEY} FROM access_keys ORDER BY access_key_id"
_SELECT_KEYS_OF_USER = f"SELECT {_KEY} FROM access_keys WHERE canonical_id = ? ORDER BY access_key_id"
_SELECT_TAKEN = "SELECT 1 FROM users WHERE name = ? OR canonical_id = ?"
_SELECT_OWNS_BUCKET = "SELECT 1 FROM buckets WHERE owner_id = ? LIMIT 1"
_DELETE_USER = "DELETE FROM users WHERE canonical_id = ?"
_DELETE_KEYS_OF_USER = "DELETE FROM access_keys WHERE canonical_id = ?"
_DELETE_KEY = "DELETE FROM access_keys WHERE access_key_id = ?"


def create_user(tx: Transaction, command: CreateUser) -> None:
    user = command.user
    if tx.execute(_SELECT_TAKEN, (user.name, user.canonical_id)).fetchone():
        raise UserAlreadyExists("the name or canonical id is taken")
    _insert_user(tx, user)
    if command.access_key is not None:
        _insert_key(tx, command.access_key)
    raise_configuration_sequence(tx)


def put_root_user(tx: Transaction, command: PutRootUser) -> None:
    """Creation times are not compared: they are not part of what the credentials say."""
    row = tx.execute(_SELECT_ROOT).fetchone()
    current = None if row is None else _user(row)
    if current is not None:
        current_keys = [_key(key) for key in tx.execute(_SELECT_KEYS_OF_USER, (current.canonical_id,)).fetchall()]
        if _timeless(current) == _timeless(command.user) and [*map(_timeless, current_keys)] == [
            _timeless(command.access_key)
        ]:
            return
        tx.execute(_DELETE_KEYS_OF_USER, (current.canonical_id,))
        tx.execute(_DELETE_USER, (current.canonical_id,))
    if tx.execute(_SELECT_TAKEN, (command.user.name, command.user.canonical_id)).fetchone():
        raise UserAlreadyExists("another user has the root user's name or canonical id")
    _insert_user(tx, command.user)
    _insert_key(tx, command.access_key)
    raise_configuration_sequence(tx)


def delete_user(tx: Transaction, command: DeleteUser) -> None:
    row = tx.execute(_SELECT_USER_BY_NAME, (command.name,)).fetchone()
    if row is None:
        raise NoSuchUser()
    user = _user(row)
    if user.is_root:
        raise LimitExceeded("the root user cannot be deleted")
    if tx.execute(_SELECT_OWNS_BUCKET, (user.canonical_id,)).fetchone():
        raise BucketNotEmpty("the user still owns buckets")
    tx.execute(_DELETE_KEYS_OF_USER, (user.canonical_id,))
    tx.execute(_DELETE_USER, (user.canonical_id,))
    raise_configuration_sequence(tx)


def create_access_key(tx: Transaction, command: CreateAccessKey) -> None:
    if tx.execute(_SELECT_USER, (command.access_key.canonical_id,)).fetchone() is None:
        raise NoSuchUser()
    _insert_key(tx, command.access_key)
    raise_configuration_sequence(tx)


def delete_access_key(tx: Transaction, command: DeleteAccessKey) -> None:
    if tx.execute(_DELETE_KEY, (command.access_key_id,)).rowcount:
        raise_configuration_sequence(tx)


def find_access_key(execute: Execute, access_key_id: str) -> tuple[AccessKey, User] | None:
    """The access key and whose it is, of one snapshot."""
    row = execute(_SELECT_KEY, (access_key_id,)).fetchone()
    if row is None:
        return None
    access_key = _key(row)
    user = find_user(execute, access_key.canonical_id)
    return None if user is None else (access_key, user)


def find_user(execute: Execute, canonical_id: str) -> User | None:
    row = execute(_SELECT_USER, (canonical_id,)).fetchone()
    return None if row is None else _user(row)


def find_user_by_name(execute: Execute, name: str) -> User | None:
    row = execute(_SELECT_USER_BY_NAME, (name,)).fetchone()
    return None if row is None else _user(row)


def find_user_by_email(execute: Execute, email: str) -> User | None:
    rows = execute(_SELECT_USERS_BY_EMAIL, (email,)).fetchall()
    return _user(rows[0]) if len(rows) == 1 else None


def list_users(execute: Execute) -> list[tuple[User, list[AccessKey]]]:
    keys: dict[str, list[AccessKey]] = {}
    for row in execute(_SELECT_KEYS).fetchall():
        keys.setdefault(row[1], []).append(_key(row))
    return [(user, keys.get(user.canonical_id, [])) for user in map(_user, execute(_SELECT_USERS).fetchall())]


def _insert_user(tx: Transaction, user: User) -> None:
    created_ms = user.created_ms or tx.now_ms
    tx.execute(
        _INSERT_USER, (user.canonical_id, user.name, user.display_name, user.email, int(user.is_root), created_ms)
    )


def _insert_key(tx: Transaction, access_key: AccessKey) -> None:
    if tx.execute(_SELECT_KEY, (access_key.access_key_id,)).fetchone():
        raise UserAlreadyExists("the access key id is taken")
    tx.execute(
        _INSERT_KEY,
        (
            access_key.access_key_id,
            access_key.canonical_id,
            access_key.sealed_secret,
            int(access_key.enabled),
            access_key.created_ms or tx.now_ms,
        ),
    )


def _user(row: tuple[Any, ...]) -> User:
    canonical_id, name, display_name, email, is_root, created_ms = row
    return User(canonical_id, name, display_name, email, bool(is_root), created_ms)


def _key(row: tuple[Any, ...]) -> AccessKey:
    access_key_id, canonical_id, sealed_secret, enabled, created_ms = row
    return AccessKey(access_key_id, canonical_id, sealed_secret, bool(enabled), created_ms)


def _timeless(record: User | AccessKey) -> User | AccessKey:
    return msgspec.structs.replace(record, created_ms=0)
