"""The data directory of `frostbyte up`: what is made in it once, at the first start, and read at every later one.

    cluster.json       cluster id and format version, what keys, chunks and nodes are bound to; which engine has the
                       records
    credentials.json   the root credentials, unless the environment gives them
    master.key         opens the keyring; unless the environment gives it
    internal.key       what internal calls are authenticated with; a copy is in the keyring
    keyring/           bucket keys, wrapped by the master key
    metadata/          the records, unless PostgreSQL has them
    datanode-N/        sealed chunks (with several --data: DIR/datanode/)
    run/               the lock, role configurations, and the sockets where their paths are short enough

Every secret file is 0600 and stored whole and durable before it is used.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from s3gw.cli import describe_os_error
from s3gw.config import Config, ConfigError
from storage.base.clock import SystemClock
from storage.base.files import DiskFile, DiskFiles, fetch_file, make_directories, store_file
from storage.base.ids import CLUSTER_ID_BYTES
from storage.base.internal_auth import INTERNAL_KEY_BYTES
from storage.base.key_files import read_internal_key, store_internal_key
from storage.base.secret_variables import SECRET_KEY_VARIABLE
from storage.crypto.keyring import SYSTEM_KEY_ID, Keyring
from storage.crypto.master_key import open_master_keys, require_private
from storage.datanode.identity import WrongDirectory, find_identity, store_identity
from storage.metadata.settings import SQLITE, MetadataSettings
from storage.metadata.sqlite.database import DATABASE_NAME

FORMAT_VERSION = 1
METADATA_SOCKET = "metadata.sock"
MASTER_FILE = "master.json"
CLUSTER_FILE = "cluster.json"
CREDENTIALS_FILE = "credentials.json"
SMALL_FILE_BYTES_MAX = 64 * 1024
SOCKET_PATH_BYTES_MAX = 100
"""the system's bound is 108 with the closing zero; some are shorter"""
LONGEST_SOCKET_NAME = "datanode-64.sock"
ACCESS_KEY_VARIABLE = "FROSTBYTE_ROOT_ACCESS_KEY_ID"

FILES = DiskFiles()
_CLUSTER_ID = re.compile(r"[0-9a-f]{32}\Z")
_Document = TypeVar("_Document")


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The root user's. `repr` hides the secret."""

    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id})"


class Origin(enum.Enum):
    """Where the root credentials come from."""

    ENVIRONMENT = "environment"
    FILE = "file"
    MADE = "made"


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """cluster.json"""

    cluster_id: str
    format_version: int = FORMAT_VERSION
    metadata_engine: str = ""
    """which holds the records, since they were made: a start with another one would find none, or old ones"""


class DatanodeHome(NamedTuple):
    """One datanode's directory and the id it was given."""

    number: int
    path: Path
    node_id: str


class Home(NamedTuple):
    """A prepared data directory. `lock` keeps other supervisors and offline commands out for as long as it is open."""

    config: Config
    cluster_id: str
    credentials: Credentials
    credentials_origin: Origin
    keyring: Keyring
    datanodes: tuple[DatanodeHome, ...]
    sockets: Path
    lock: DiskFile

    @property
    def run(self) -> Path:
        """Where role configurations are written."""
        return self.config.home / "run"

    @property
    def metadata(self) -> Path:
        """The directory of SQLite's records."""
        return metadata_directory(self.config.home)

    @property
    def metadata_socket(self) -> Path:
        """Where the one owner of writes to SQLite listens."""
        return self.sockets / METADATA_SOCKET

    @property
    def records(self) -> MetadataSettings:
        """How every process opens the records."""
        return complete_settings(self.config.metadata, self.config.home, self.sockets)

    @property
    def internal_key_file(self) -> Path:
        """What gateways and the master derive every node's key from."""
        return self.config.home / "internal.key"


def prepare_home(config: Config, environment: Mapping[str, str], cluster_id: str = "") -> Home:
    """Make what is missing, check what is there, and lock it. FrostbyteError in one line.

    cluster_id: for a directory that has none yet; empty: made at random.
    """
    home = config.home
    try:
        make_directories(FILES, home / "run")
        if config.metadata.engine == SQLITE:
            make_directories(FILES, metadata_directory(home))
        lock = lock_home(home)
    except OSError as error:
        raise ConfigError(describe_os_error(error)) from error
    try:
        return _prepare_locked(config, environment, cluster_id, lock)
    except BaseException as error:
        lock.close()
        if isinstance(error, OSError):
            raise ConfigError(describe_os_error(error)) from error
        if isinstance(error, ValueError | WrongDirectory):
            raise ConfigError(str(error)) from error
        raise


def _prepare_locked(config: Config, environment: Mapping[str, str], cluster_id: str, lock: DiskFile) -> Home:
    """In this order: what cannot be made again, then what it opens, then what is bound to it."""
    home = config.home
    sockets = socket_directory(home)
    cluster_id = _cluster_id(home / CLUSTER_FILE, cluster_id)
    keyring = open_keyring(home, cluster_id, environment, make=True)
    _make_internal_key(home / "internal.key", keyring)
    credentials, origin = _credentials(home / CREDENTIALS_FILE, environment)
    datanodes = tuple(
        DatanodeHome(number, path, identify_datanode(path, cluster_id))
        for number, path in enumerate(config.datanode_directories, 1)
    )
    return Home(config, cluster_id, credentials, origin, keyring, datanodes, sockets, lock)


def lock_home(home: Path) -> DiskFile:
    """Hold the data directory. ConfigError when another process does."""
    try:
        return FILES.lock(home / "run" / "lock")
    except BlockingIOError:
        raise ConfigError(f"another frostbyte runs on {home}") from None


def open_keyring(home: Path, cluster_id: str, environment: Mapping[str, str], *, make: bool) -> Keyring:
    """The keyring, proven to be opened by the master key at hand. FrostbyteError or ValueError in one line.

    make: a master key where there is no keyring yet. Beside a keyring a new one would only hide that the right one is
    missing.
    """
    is_new = make and not (home / "keyring" / f"{SYSTEM_KEY_ID}.json").exists()
    master_keys = open_master_keys(FILES, home / "master.key", environment, make=is_new)
    keyring = Keyring(FILES, home / "keyring", bytes.fromhex(cluster_id), master_keys, SystemClock())
    keyring.open()
    return keyring


def read_cluster_id(home: Path) -> str:
    """Of an existing data directory. ConfigError when there is none."""
    path = home / CLUSTER_FILE
    if not path.exists():
        raise ConfigError(f"{home} holds no frostbyte data (no cluster.json)")
    return _cluster_id(path)


def read_recorded_engine(home: Path) -> str:
    """Which engine was said to hold the records of a data directory; empty before they were made."""
    path = home / CLUSTER_FILE
    return _decode_file(path, ClusterFile).metadata_engine if path.exists() else ""


def read_engine(home: Path) -> str:
    """As it is recorded, or SQLite where there is a file of its own."""
    return read_recorded_engine(home) or (SQLITE if (metadata_directory(home) / DATABASE_NAME).exists() else "")


def record_engine(home: Path, engine: str) -> None:
    """From now on, a start with another one is refused."""
    path = home / CLUSTER_FILE
    stored = _decode_file(path, ClusterFile)
    if stored.metadata_engine != engine:
        _store_cluster_file(path, msgspec.structs.replace(stored, metadata_engine=engine))


def store_recovered(home: Path, cluster_id: str, credentials: Credentials | None) -> None:
    """Make a directory that holds recovered keys and records one that `up` starts with: the credentials where there are
    none, and last of all which cluster it is. ConfigError for another cluster's."""
    path = home / CREDENTIALS_FILE
    if credentials is not None and not path.exists():
        _store_credentials(path, credentials)
    _cluster_id(home / CLUSTER_FILE, cluster_id)
    record_engine(home, SQLITE)


def metadata_directory(home: Path) -> Path:
    """Of SQLite's records."""
    return home / "metadata"


def complete_settings(settings: MetadataSettings, home: Path, sockets: Path) -> MetadataSettings:
    """With SQLite's places in a data directory."""
    if settings.engine != SQLITE:
        return settings
    return msgspec.structs.replace(settings, path=str(metadata_directory(home)), socket=str(sockets / METADATA_SOCKET))


def socket_directory(home: Path) -> Path:
    """DIR/run, or a private directory of this user under the temporary one where a socket's path would be too long."""
    run = (home / "run").resolve()
    if _fits(run):
        return run
    name = hashlib.sha256(os.fsencode(run)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"frostbyte-{os.getuid()}-{name}"
    if not _fits(directory):
        raise ConfigError(f"the paths of sockets in {run} and in {directory} are too long; choose a shorter directory")
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.stat(follow_symlinks=False)
    if directory.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(f"{directory} is not a private directory of this user")
    return directory


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory / LONGEST_SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX


def root_canonical_id(cluster_id: str) -> str:
    """64 hex digits, the same for the life of the cluster."""
    return hashlib.sha256(b"frostbyte root user " + bytes.fromhex(cluster_id)).hexdigest()


def identify_datanode(path: Path, cluster_id: str) -> str:
    """The node id of a datanode's directory, made at the first start. WrongDirectory for another cluster's."""
    make_directories(FILES, path)
    identity = find_identity(FILES, path, cluster_id) or store_identity(FILES, path, cluster_id)
    return identity.node_id


def _cluster_id(path: Path, asked: str = "") -> str:
    if asked and not _CLUSTER_ID.match(asked):
        raise ConfigError(f"a cluster id has {CLUSTER_ID_BYTES * 2} lower-case hex digits")
    try:
        stored = _decode_file(path, ClusterFile)
    except FileNotFoundError:
        stored = ClusterFile(asked or secrets.token_hex(CLUSTER_ID_BYTES))
        _store_cluster_file(path, stored)
    if asked and stored.cluster_id != asked:
        raise ConfigError(f"{path.parent} belongs to cluster {stored.cluster_id}, not to {asked}")
    if not _CLUSTER_ID.match(stored.cluster_id):
        raise ConfigError(f"{path} is damaged: a cluster id has {CLUSTER_ID_BYTES * 2} lower-case hex digits")
    if stored.format_version != FORMAT_VERSION:
        raise ConfigError(f"{path} has format {stored.format_version}; this program reads format {FORMAT_VERSION}")
    return stored.cluster_id


def _store_cluster_file(path: Path, stored: ClusterFile) -> None:
    store_file(FILES, path, msgspec.json.encode(stored) + b"\n")


def _make_internal_key(path: Path, keyring: Keyring) -> None:
    """As the keyring has it, where the file is missing; and the other way round."""
    if not path.exists():
        store_internal_key(FILES, path, keyring.find_internal_key() or secrets.token_bytes(INTERNAL_KEY_BYTES))
    keyring.keep_internal_key(read_internal_key(FILES, path))


def _credentials(path: Path, environment: Mapping[str, str]) -> tuple[Credentials, Origin]:
    access_key_id = environment.get(ACCESS_KEY_VARIABLE, "")
    secret = environment.get(SECRET_KEY_VARIABLE, "")
    if bool(access_key_id) != bool(secret):
        raise ConfigError(f"{ACCESS_KEY_VARIABLE} and {SECRET_KEY_VARIABLE} go together")
    if access_key_id:
        return Credentials(access_key_id, secret), Origin.ENVIRONMENT
    try:
        require_private(path)
        return _decode_file(path, Credentials), Origin.FILE
    except FileNotFoundError:
        made = Credentials(make_access_key_id(), make_secret_access_key())
        _store_credentials(path, made)
        return made, Origin.MADE


def _store_credentials(path: Path, credentials: Credentials) -> None:
    store_file(FILES, path, msgspec.json.format(msgspec.json.encode(credentials), indent=2) + b"\n")


def _decode_file(path: Path, kind: type[_Document]) -> _Document:
    """FileNotFoundError; ConfigError that names the file."""
    try:
        return msgspec.json.decode(fetch_file(FILES, path, SMALL_FILE_BYTES_MAX), type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None


def make_access_key_id() -> str:
    """20 characters, as AWS's are."""
    return "FB" + base64.b32encode(secrets.token_bytes(12)).decode()[:18]


def make_secret_access_key() -> str:
    """40 characters that need no quoting in a shell."""
    return secrets.token_urlsafe(30)
