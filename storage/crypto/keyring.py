"""The keyring: bucket keys, named keys, the `system` key and a copy of the internal key, one file each, wrapped by the
master key.

It lives apart from the metadata and from its backups, so that destroying a file erases the bucket wherever its bytes
are, as far as no old copy of the file is left for the same master key. Every file is stored whole and durable before
its id is handed out.

    {"key_id": …, "created_ms": 0, "versions": [{"version": 1, "master_key_id": "mk-…", "wrapped": …}], "format": 1}

Rotating the master key: 1. the new one is durable beside the old one, and everybody wraps with it from then on;
2. every file is re-wrapped, one at a time; 3. the old one is removed. A crash after 1 or inside 2 leaves files of both
kinds and both master keys; the next rotation goes on with the same new key. Whoever makes a key looks at the master
keys again after its file is stored, so a file made while step 2 lists the others is not missed.

Calls block on small files: make them in a worker thread. Only bucket_key, current_bucket_key and the secrets are cached
and may be called on an event loop: a miss reads one small file, at most once a minute for a key.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from storage.base.clock import Clock
from storage.base.errors import Corrupt, Unavailable, UnknownKeyId
from storage.base.files import FileSystem, fetch_file, make_directories, store_file
from storage.crypto.keys import (
    KEY_BYTES,
    NONCE_BYTES,
    BucketSecret,
    master_key_id,
    named_key_id,
    open_secret,
    parse_secret_key_version,
    seal_secret,
    unwrap_bucket_key,
    wrap_bucket_key,
)
from storage.crypto.master_key import MasterKeys

SYSTEM_KEY_ID = "system"
INTERNAL_KEY_ID = "internal"
"""what internal calls are authenticated with; kept here so that keyring and master key are all that a new host needs"""
CACHED_KEYS_MAX = 4_096
CACHE_TTL_S = 60.0
"""how long another process may go on using a key that was destroyed here"""
KEY_VERSIONS_MAX = 256
FORMAT = 1
_FILE_BYTES_MAX = 65_536
_KEY_ID = re.compile(r"(?:bk-[0-9a-f]{32}|named-[A-Za-z0-9][A-Za-z0-9._-]{0,63}|system|internal)\Z")
_SUFFIX = ".json"
_RESERVED = (SYSTEM_KEY_ID, INTERNAL_KEY_ID)
"""not of objects"""


class BucketKey(NamedTuple):
    """A key to seal with; blobs record its id and version. `repr` hides the secret."""

    key_id: str
    version: int
    secret: bytes

    def __repr__(self) -> str:
        return f"BucketKey({self.key_id}, version {self.version})"


class WrappedVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version of a key as it lies in the file; wrapped: nonce ++ ciphertext ++ tag."""

    version: int
    master_key_id: str
    wrapped: bytes


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the keyring. Versions rise from 1; the last one seals."""

    key_id: str
    created_ms: int
    versions: tuple[WrappedVersion, ...]
    format: int = FORMAT


_decode = msgspec.json.Decoder(KeyFile).decode


class _Opened:
    """A key in the cache. Not a tuple, so that no repr can show what is inside."""

    def __init__(self, current: BucketKey, secrets_by_version: dict[int, BucketSecret], expires_s: float) -> None:
        self.current = current
        self.secrets_by_version = secrets_by_version
        self.expires_s = expires_s


class Keyring:
    """The keys of one cluster in one directory. Any number of processes may open the same one; threads may share it."""

    def __init__(
        self, files: FileSystem, directory: Path, cluster_id: bytes, master_keys: MasterKeys, clock: Clock
    ) -> None:
        self._files = files
        self._directory = directory
        self._cluster_id = cluster_id
        self._sources = master_keys
        self._clock = clock
        self._master_keys: dict[str, bytes] = {}
        self._cache: dict[str, _Opened] = {}

    def open(self, *, make: bool = True) -> None:
        """Prove that the master key is the right one. make: the directory and the system key where they are missing;
        not for who joins a cluster, whose secrets a new system key would not open.

        UnknownKeyId in one clear line when it is another one, or when there is no keyring to join; ValueError when
        there is no master key.
        """
        if make:
            make_directories(self._files, self._directory)
        self._load_master_keys()
        try:
            self._read(SYSTEM_KEY_ID)
            self._files.fsync_directory(self._directory)  # its maker may have died before the name was durable
        except UnknownKeyId:
            if not make:
                raise UnknownKeyId(
                    f"{self._directory} holds no keyring: give it that of the cluster, one directory for all gateways"
                ) from None
            self._make(SYSTEM_KEY_ID)
        self._open_key(SYSTEM_KEY_ID)

    # ------------------------------------------------------------------ keys

    def create_bucket_key(self) -> str:
        """A new random key; its file is durable when the id is returned."""
        key_id = f"bk-{secrets.token_hex(16)}"
        self._make(key_id)
        return key_id

    def create_named_key(self, name: str) -> str:
        """A new random key that an operator refers to by name; durable when its id is returned. ValueError for a name
        that is no file name or is taken."""
        key_id = named_key_id(name)
        if not self._make(key_id):
            raise ValueError(f"there is a key named {name} already")
        return key_id

    def bucket_key(self, key_id: str, version: int) -> bytes:
        """The 32 bytes that a blob's wrapping key is derived from. UnknownKeyId; Corrupt when its file is damaged."""
        secret = self._open_key(key_id).secrets_by_version.get(version)
        if secret is None:
            raise UnknownKeyId(f"key {key_id} has no version {version}", key_id=key_id)
        return secret

    def current_bucket_key(self, key_id: str) -> BucketKey:
        """The key to seal new blobs with. Errors as bucket_key."""
        return self._open_key(key_id).current

    def keys_to_write(self, key_id: str, version: int) -> tuple[BucketKey, bytes]:
        """current_bucket_key, and bucket_key of this version: what one write needs. Errors as bucket_key."""
        opened = self._open_key(key_id)
        secret = opened.secrets_by_version.get(version)
        return opened.current, self.bucket_key(key_id, version) if secret is None else secret

    def add_version(self, key_id: str) -> int:
        """Seal with a new secret from now on; blobs that exist keep theirs. Other processes follow within the TTL."""
        return self._append_version(key_id, secrets.token_bytes(KEY_BYTES))

    def _append_version(self, key_id: str, secret: bytes) -> int:
        with self._alone():
            stored = self._read(key_id)
            if len(stored.versions) >= KEY_VERSIONS_MAX:
                raise ValueError(f"key {key_id} has {KEY_VERSIONS_MAX} versions already")
            version = stored.versions[-1].version + 1
            added = self._wrap(key_id, version, secret, self._load_master_keys())
            self._store(msgspec.structs.replace(stored, versions=(*stored.versions, added)))
        return version

    def list_key_files(self) -> Iterator[KeyFile]:
        """Every key that objects are sealed under, in no order: ids, versions and master key ids, nothing secret."""
        for key_id in self._key_ids():
            if key_id not in _RESERVED:
                yield self._read(key_id)

    def destroy(self, key_id: str) -> None:
        """Remove the key: what it sealed stays shut, but for who has an old copy of the file and its master key.

        Durable when it returns. UnknownKeyId when there is none. Other processes may use it for CACHE_TTL_S more.
        """
        if key_id in _RESERVED:
            raise ValueError(f"the {key_id} key cannot be destroyed")
        with self._alone():
            path = self._path(key_id)
            try:
                self._files.unlink(path)
            except FileNotFoundError:
                raise UnknownKeyId(f"there is no key {key_id}", key_id=key_id) from None
            self._files.fsync_directory(self._directory)
            self._cache.pop(key_id, None)

    # ------------------------------------------------------------------ the internal key

    def keep_internal_key(self, secret: bytes) -> None:
        """See that the keyring has this one, durably. Unavailable while another process changes the keyring."""
        if not self._make(INTERNAL_KEY_ID, secret) and self.find_internal_key() != secret:
            self._append_version(INTERNAL_KEY_ID, secret)

    def find_internal_key(self) -> bytes | None:
        """As it was last kept; None of a keyring that is older than that."""
        try:
            return self._open_key(INTERNAL_KEY_ID).current.secret
        except UnknownKeyId:
            if self._path(INTERNAL_KEY_ID).name in self._files.list_directory(self._directory):
                raise
            return None

    # ------------------------------------------------------------------ secrets

    def seal_access_secret(self, access_key_id: str, secret_access_key: str) -> bytes:
        """A SigV4 secret for the metadata, bound to its access key id."""
        system = self._open_key(SYSTEM_KEY_ID).current
        nonce = secrets.token_bytes(NONCE_BYTES)
        purpose = f"sigv4 {access_key_id}"
        return seal_secret(system.secret, system.version, nonce, self._cluster_id, purpose, secret_access_key.encode())

    def open_access_secret(self, access_key_id: str, sealed_secret: bytes) -> str:
        """The inverse. SealBroken when it was sealed for another access key id or was changed; UnknownKeyId."""
        system_key = self.bucket_key(SYSTEM_KEY_ID, parse_secret_key_version(sealed_secret))
        return open_secret(system_key, self._cluster_id, f"sigv4 {access_key_id}", sealed_secret).decode()

    # ------------------------------------------------------------------ rotation

    def rotate_master(self) -> int:
        """Re-wrap every key with a new master key; how many files changed. Repeat it after a crash.

        Unavailable when another process is at it; UnknownKeyId when a file is wrapped by a key that is not at hand
        (then nothing is lost: the old master key stays).
        """
        with self._alone():
            self._sources.begin_rotation()
            changed = sum([self._rewrap(key_id) for key_id in list(self._key_ids())])
            self._sources.finish_rotation()
        return changed

    def _rewrap(self, key_id: str) -> bool:
        first = self._load_master_keys()
        try:
            stored = self._read(key_id)
        except UnknownKeyId:
            return False
        if all(version.master_key_id == first for version in stored.versions):
            return False
        versions = tuple(
            self._wrap(key_id, version.version, self._unwrap(key_id, version), first) for version in stored.versions
        )
        self._store(msgspec.structs.replace(stored, versions=versions))
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one process at a time changes or removes files that exist; making new ones needs no turn."""
        try:
            held = self._files.lock(self._directory / ".lock")
        except BlockingIOError:
            raise Unavailable("another process is changing the keyring") from None
        with held:
            yield

    # ------------------------------------------------------------------ files

    def _make(self, key_id: str, secret: bytes = b"") -> bool:
        """Durable when it returns; False when the key was there already. secret: random unless it is given."""
        first = self._load_master_keys()
        wrapped = self._wrap(key_id, 1, secret or secrets.token_bytes(KEY_BYTES), first)
        made = KeyFile(key_id, self._clock.now_ms(), (wrapped,))
        try:
            store_file(self._files, self._path(key_id), _encode(made), exclusive=True)
        except FileExistsError:  # another process was first, and may die before its name is durable
            self._files.fsync_directory(self._directory)
            return False
        if self._load_master_keys() != first:
            self._rewrap(key_id)
        return True

    def _open_key(self, key_id: str) -> _Opened:
        cached = self._cache.get(key_id)
        if cached is not None and cached.expires_s > self._clock.monotonic_s():
            return cached
        self._cache.pop(key_id, None)
        stored = self._read(key_id)
        opened = {version.version: BucketSecret(self._unwrap(key_id, version)) for version in stored.versions}
        current = stored.versions[-1].version
        entry = _Opened(BucketKey(key_id, current, opened[current]), opened, self._clock.monotonic_s() + CACHE_TTL_S)
        while len(self._cache) >= CACHED_KEYS_MAX:
            self._cache.pop(next(iter(self._cache)), None)
        self._cache[key_id] = entry
        return entry

    def _wrap(self, key_id: str, version: int, secret: bytes, master_id: str) -> WrappedVersion:
        nonce = secrets.token_bytes(NONCE_BYTES)
        master_key = self._master_keys[master_id]
        wrapped = wrap_bucket_key(master_key, nonce, self._cluster_id, key_id, version, secret)
        return WrappedVersion(version, master_id, wrapped)

    def _unwrap(self, key_id: str, stored: WrappedVersion) -> bytes:
        if stored.master_key_id not in self._master_keys:
            first = self._load_master_keys()
            if stored.master_key_id not in self._master_keys:
                raise UnknownKeyId(
                    f"{self._path(key_id)} is wrapped by master key {stored.master_key_id}, but the master key given"
                    f" is {first}",
                    key_id=key_id,
                )
        master_key = self._master_keys[stored.master_key_id]
        return unwrap_bucket_key(master_key, self._cluster_id, key_id, stored.version, stored.wrapped)

    def _load_master_keys(self) -> str:
        """Read the source again; the id of the key to wrap with."""
        loaded = {master_key_id(secret): secret for secret in self._sources.load()}
        self._master_keys = {**self._master_keys, **loaded}
        return next(iter(loaded))

    def _read(self, key_id: str) -> KeyFile:
        path = self._path(key_id)
        try:
            stored = _decode(fetch_file(self._files, path, _FILE_BYTES_MAX))
        except FileNotFoundError:
            raise UnknownKeyId(f"there is no key {key_id}", key_id=key_id) from None
        except ValueError as error:  # msgspec's errors are ValueErrors
            raise Corrupt(f"{path} is damaged: {error}") from None
        if stored.key_id != key_id or stored.format != FORMAT or not stored.versions:
            raise Corrupt(f"{path} is not a key file of format {FORMAT} for this key")
        return stored

    def _store(self, changed: KeyFile) -> None:
        store_file(self._files, self._path(changed.key_id), _encode(changed))
        self._cache.pop(changed.key_id, None)

    def _key_ids(self) -> Iterator[str]:
        for name in self._files.list_directory(self._directory):
            key_id = name.removesuffix(_SUFFIX)
            if key_id != name and _KEY_ID.match(key_id):
                yield key_id

    def _path(self, key_id: str) -> Path:
        if not _KEY_ID.match(key_id):
            raise UnknownKeyId(f"{key_id[:64]!r} is no key id")
        return self._directory / (key_id + _SUFFIX)


def _encode(stored: KeyFile) -> bytes:
    return msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n"
