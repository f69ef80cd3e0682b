"""Who a data directory belongs to: `node.json` holds the node's id and its cluster's, made once.

A directory of another cluster is refused before anything in it is touched, so that a disk that was moved by mistake can
neither serve nor be swept there. That two processes never share a directory is the chunk store's doing: it holds the
lock for as long as it is open, and an identity is written only while it does.

Its format is that of the directory. Format 2 may have segments (storage.chunks.segment) beside chunks in files of their
own: a directory of format 1 is marked as one of format 2 before the first segment is made, so that an earlier program
refuses it rather than find chunks missing.
"""

from __future__ import annotations

import json
import re
import socket
import uuid
from pathlib import Path
from typing import NamedTuple

from storage.base.files import FileSystem, fetch_file, store_file

IDENTITY_FILE = "node.json"
FORMAT_VERSION = 2
EARLIER_FORMAT_VERSIONS = (1,)
IDENTITY_BYTES_MAX = 4096

_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


class WrongDirectory(Exception):
    """The directory cannot be this node's; the text is one line for the operator."""


class Identity(NamedTuple):
    """Both ids are 32 hex digits."""

    node_id: str
    cluster_id: str


def read_identity(files: FileSystem, directory: Path) -> Identity | None:
    """Of a data directory, whosever it is; None when it has none yet. WrongDirectory when it is of another format, or
    damaged. Changes nothing."""
    path = directory / IDENTITY_FILE
    try:
        document = json.loads(fetch_file(files, path, IDENTITY_BYTES_MAX))
        version, identity = document["format_version"], Identity(document["node_id"], document["cluster_id"])
        whole = all(_HEX_ID.match(text) for text in identity)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WrongDirectory(f"{path} is damaged: {error}") from error
    if version not in (FORMAT_VERSION, *EARLIER_FORMAT_VERSIONS) or isinstance(version, bool):
        raise WrongDirectory(f"{path} has format {version!r}; this program reads format {FORMAT_VERSION}")
    if not whole:
        raise WrongDirectory(f"{path} is damaged: an id is 32 hex digits")
    return identity


def find_identity(files: FileSystem, directory: Path, cluster_id: str, node_id: str = "") -> Identity | None:
    """As read_identity; WrongDirectory also when it is another cluster's, or another node's (where a node_id is asked
    for)."""
    identity = read_identity(files, directory)
    if identity is None:
        return None
    if identity.cluster_id != cluster_id:
        raise WrongDirectory(f"{directory} belongs to cluster {identity.cluster_id}, not to {cluster_id}")
    if node_id and identity.node_id != node_id:
        raise WrongDirectory(f"{directory} belongs to node {identity.node_id}, not to {node_id}")
    return identity


def store_identity(files: FileSystem, directory: Path, cluster_id: str, node_id: str = "") -> Identity:
    """Make the identity of a directory that has none, durably, under a given node id or a new one. FileExistsError."""
    identity = Identity(node_id or uuid.uuid4().hex, cluster_id)
    store_file(files, directory / IDENTITY_FILE, _format(identity), exclusive=True)
    return identity


def mark_format(files: FileSystem, directory: Path, identity: Identity) -> None:
    """Say durably that the directory of this identity, whose lock is held, is of this program's format. OSError."""
    path, content = directory / IDENTITY_FILE, _format(identity)
    if fetch_file(files, path, IDENTITY_BYTES_MAX) != content:
        store_file(files, path, content)


def _format(identity: Identity) -> bytes:
    document = {"format_version": FORMAT_VERSION, **identity._asdict()}
    return json.dumps(document, indent=1).encode() + b"\n"


def find_failure_domain(directory: Path, zone: str, host: str = "") -> str:
    """zone/host/st_dev: nodes that share all three share a disk. A slash in a host's name would add a level."""
    name = host or socket.gethostname().replace("/", "-") or "localhost"
    return f"{zone}/{name}/{directory.stat().st_dev}"
