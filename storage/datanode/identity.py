"""Who a data directory belongs to: `node.json` holds the node's id and its cluster's, made once.

One process at a time owns a directory: it holds an exclusive lock on `DIR/lock` for as long as it lives, which the
kernel releases however it dies. A directory of another cluster is refused, so that a disk that was moved by mistake can
neither serve nor be swept there.
"""

from __future__ import annotations

import json
import re
import socket
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from storage.base.files import FileSystem, OpenFile, fetch_file, make_directories, store_file

IDENTITY_FILE = "node.json"
LOCK_FILE = "lock"
FORMAT_VERSION = 1
IDENTITY_BYTES_MAX = 4096

_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


class WrongDirectory(Exception):
    """The directory cannot be this node's; the text is one line for the operator."""


class Identity(NamedTuple):
    """Both ids are 32 hex digits."""

    node_id: str
    cluster_id: str


class OwnedDirectory(AbstractContextManager["OwnedDirectory"]):
    """A data directory that this process holds alone. Leaving the `with` lets it go."""

    def __init__(self, path: Path, identity: Identity, lock: OpenFile) -> None:
        self.path = path
        self.identity = identity
        self._lock = lock

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def own_directory(files: FileSystem, path: Path, cluster_id: str, node_id: str = "") -> OwnedDirectory:
    """Lock a data directory and read its identity, making both at the first start. node_id: the id to take at the first
    start; when given, a directory with another one is refused. WrongDirectory; OSError as the system gives it."""
    make_directories(files, path)
    try:
        lock = files.lock(path / LOCK_FILE)
    except BlockingIOError as error:
        raise WrongDirectory(f"another process uses {path}") from error
    try:
        identity = _read_identity(files, path / IDENTITY_FILE)
        if identity is None:
            identity = Identity(node_id or uuid.uuid4().hex, cluster_id)
            store_file(files, path / IDENTITY_FILE, _format_identity(identity))
        _check_identity(identity, path, cluster_id, node_id)
    except BaseException:
        lock.close()
        raise
    return OwnedDirectory(path, identity, lock)


def find_failure_domain(path: Path, zone: str, host: str = "") -> str:
    """zone/host/st_dev: nodes that share all three share a disk. A slash in a host's name would add a level."""
    name = host or socket.gethostname().replace("/", "-") or "localhost"
    return f"{zone}/{name}/{path.stat().st_dev}"


def _read_identity(files: FileSystem, path: Path) -> Identity | None:
    try:
        document = json.loads(fetch_file(files, path, IDENTITY_BYTES_MAX))
        identity = Identity(document["node_id"], document["cluster_id"])
        version = document["format_version"]
        whole = bool(_HEX_ID.match(identity.node_id) and _HEX_ID.match(identity.cluster_id))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise WrongDirectory(f"{path} is damaged: {error}") from error
    if version != FORMAT_VERSION:
        raise WrongDirectory(f"{path} has format {version}; this program reads format {FORMAT_VERSION}")
    if not whole:
        raise WrongDirectory(f"{path} is damaged: an id is 32 hex digits")
    return identity


def _format_identity(identity: Identity) -> bytes:
    return json.dumps({"format_version": FORMAT_VERSION, **identity._asdict()}, indent=1).encode() + b"\n"


def _check_identity(identity: Identity, path: Path, cluster_id: str, node_id: str) -> None:
    if identity.cluster_id != cluster_id:
        raise WrongDirectory(f"{path} belongs to cluster {identity.cluster_id}, not to {cluster_id}")
    if node_id and identity.node_id != node_id:
        raise WrongDirectory(f"{path} belongs to node {identity.node_id}, not to {node_id}")
