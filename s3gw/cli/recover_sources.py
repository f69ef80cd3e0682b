"""What `frostbyte recover` reads from: directories of datanodes that are stopped, and datanodes that run.

A directory is held by its lock for as long as it is read, so that no datanode starts on it meanwhile. A running one is
asked who it is, which it tells anybody, and then called with the token that follows from the internal key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from s3gw.cli.home import FILES
from s3gw.config import ConfigError
from storage.base.address import parse_address
from storage.base.errors import Unavailable
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.base.internal_client import InternalClient
from storage.chunks.layout import LOCK
from storage.datanode import wire
from storage.datanode.identity import IDENTITY_FILE, Identity, WrongDirectory, read_identity
from storage.datanode.journal_client import JournalClient
from storage.datanode.journal_files import JOURNAL_DIRECTORY
from storage.journal.directory import DirectorySource
from storage.journal.stock import Source

_REALM = re.compile(r'Bearer realm="([0-9a-f]{32})/([0-9a-f]{32})"\Z')


class StoppedNode(NamedTuple):
    """A datanode by its directory."""

    path: Path
    identity: Identity

    @property
    def source(self) -> Source:
        """Its journal files."""
        return DirectorySource(self.path / JOURNAL_DIRECTORY)


class RunningNode(NamedTuple):
    """A datanode by its address."""

    address: str
    identity: Identity


def find_stopped(paths: Sequence[Path]) -> list[StoppedNode]:
    """Each path is a datanode's own directory, one with `datanode` in it, or one with `datanode-1`, …. ConfigError."""
    found: dict[str, StoppedNode] = {}
    for path in map(Path.absolute, paths):
        directories = [it for it in (path, path / "datanode", *sorted(path.glob("datanode-*"))) if _is_datanode(it)]
        if not directories:
            raise ConfigError(f"{path} is no directory of a datanode (no {IDENTITY_FILE})")
        for directory in directories:
            try:
                identity = read_identity(FILES, directory)
            except WrongDirectory as error:
                raise ConfigError(str(error)) from error
            if identity is not None:
                found.setdefault(identity.node_id, StoppedNode(directory, identity))
    return list(found.values())


def hold_stopped(nodes: Sequence[StoppedNode], held: AsyncExitStack) -> None:
    """Keep datanodes from being started on these. ConfigError when one runs."""
    for node in nodes:
        try:
            held.enter_context(FILES.lock(node.path / LOCK))
        except BlockingIOError:
            raise ConfigError(
                f"a datanode runs on {node.path}: stop it, or name its address with --node instead"
            ) from None


async def find_running(addresses: Sequence[str], tls_ca: str | None) -> list[RunningNode]:
    """Who listens at each. ConfigError, Unavailable."""
    found = []
    for text in addresses:
        client = InternalClient(parse_address(text), "", tls_ca=tls_ca, unreachable=Unavailable)
        try:
            answer = await client.call("GET", wire.SPACE)
        finally:
            await client.close()
        match = _REALM.match(answer.headers.get("www-authenticate", ""))
        if match is None:
            raise ConfigError(f"what listens at {text} is no datanode that says who it is")
        found.append(RunningNode(text, Identity(match[2], match[1])))
    return found


def call_running(nodes: Sequence[RunningNode], internal_key: bytes, tls_ca: str | None) -> list[JournalClient]:
    """Clients of their journal files; the caller closes them."""
    return [
        JournalClient(
            parse_address(node.address),
            access_token(derive_node_key(internal_key, ROLE_DATANODE, node.identity.node_id)),
            tls_ca=tls_ca,
        )
        for node in nodes
    ]


def choose_cluster(identities: Sequence[Identity]) -> str:
    """The one that all of them belong to. ConfigError."""
    clusters = sorted({identity.cluster_id for identity in identities})
    if not clusters:
        raise ConfigError("no datanode is given: name directories with --datanode, or addresses with --node")
    if len(clusters) > 1:
        raise ConfigError(f"these datanodes belong to several clusters: {', '.join(clusters)}")
    return clusters[0]


def _is_datanode(directory: Path) -> bool:
    return (directory / IDENTITY_FILE).exists()
