"""The datanodes whose directories this process can read itself, because they are on the same machine and of the same
user: sealed bytes without the way through the datanode.

A directory is read for the node that its identity file names, once that is found to be of this cluster and the cluster
map gives that node a number. Bytes are sealed frames all the same and are opened like those that a datanode sent. What
cannot be read here, whatever the reason, is asked of the datanode, whose business it is to notice and tell a damage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from cluster.read_counts import ReadCounts
from storage.base.blocks import BLOCKS
from storage.base.files import DiskFiles
from storage.base.ids import ChunkId
from storage.chunks.near_chunks import FAILURES, NearChunks
from storage.datanode.identity import WrongDirectory, find_identity
from storage.model import ClusterMap

_log = logging.getLogger(__name__)


class NearPieces:
    """Of one worker; closed once."""

    def __init__(self, cluster_id: bytes, counts: ReadCounts, directories: Sequence[Path] = ()) -> None:
        """directories: of datanodes, whosever they turn out to be. Touches nothing yet."""
        self._counts = counts
        self._cluster_id = cluster_id.hex()
        self._unknown = list(directories)
        """not identified yet"""
        self._by_node_id: dict[str, NearChunks] = {}
        self._directories: dict[str, Path] = {}
        """by node id"""
        self._by_number: dict[int, NearChunks] = {}
        self._directory_by_number: dict[int, Path] = {}
        self._map: ClusterMap | None = None
        self._identifying: asyncio.Task[None] | None = None

    def adopt(self, cluster_map: ClusterMap) -> None:
        """Nodes have these numbers from now on. Directories that were nobody's before are looked at again."""
        self._map = cluster_map
        self._number()
        if self._unknown and (self._identifying is None or self._identifying.done()):
            self._identifying = asyncio.get_running_loop().create_task(self._identify())

    def __contains__(self, number: int) -> bool:
        """Whether this node's directory is read here."""
        return number in self._by_number

    def __bool__(self) -> bool:
        """Whether any is."""
        return bool(self._by_number)

    def directory(self, number: int) -> Path | None:
        """This node's, if it is on this machine."""
        return self._directory_by_number.get(number)

    def read_cached(self, number: int, chunk_id: ChunkId, offset: int, target: bytearray | memoryview) -> bool:
        """Fill the target with sealed bytes of a node's piece, if they are at hand in memory. FAILURES where `read` has
        to be tried all the same, so that it is counted and the datanode asked."""
        near = self._by_number.get(number)
        if near is None or not near.read_cached(chunk_id, offset, target):
            return False
        self._counts.near_bytes += len(target)
        return True

    async def read(self, number: int, chunk_id: ChunkId, offset: int, length: int) -> memoryview | None:
        """The same, however long the medium takes for it; None when it is to be asked of the datanode."""
        near = self._by_number.get(number)
        if near is None:
            return None
        target = BLOCKS.take_filling(length)
        try:
            await near.read(chunk_id, offset, target)
        except FAILURES:
            near.forget(chunk_id)
            self._counts.near_refused += 1
            return None
        self._counts.near_bytes += length
        return target

    def forget(self, number: int, chunk_id: ChunkId) -> None:
        """Its bytes were not right: let the next read open the piece anew."""
        near = self._by_number.get(number)
        if near is not None:
            near.forget(chunk_id)

    async def close(self) -> None:
        """Let go of all files and threads."""
        if self._identifying is not None:
            self._identifying.cancel()
        self._by_number = {}
        for near in self._by_node_id.values():
            await asyncio.to_thread(near.close)

    async def _identify(self) -> None:
        """In threads: a medium that does not answer holds nobody else up."""
        async with asyncio.TaskGroup() as looking:
            for directory in self._unknown[:]:
                looking.create_task(self._identify_one(directory))

    async def _identify_one(self, directory: Path) -> None:
        try:
            identity = await asyncio.to_thread(find_identity, DiskFiles(), directory, self._cluster_id)
        except (WrongDirectory, OSError, ValueError) as error:
            _log.warning("%s is not read past its datanode: %s", directory, error)
            self._unknown.remove(directory)
            return
        if identity is not None:
            self._unknown.remove(directory)
            self._by_node_id[identity.node_id] = NearChunks(directory)
            self._directories[identity.node_id] = directory
            self._number()

    def _number(self) -> None:
        nodes = self._map.nodes if self._map is not None else ()
        self._by_number = {
            node.number: self._by_node_id[node.report.node_id]
            for node in nodes
            if node.report.node_id in self._by_node_id
        }
        self._directory_by_number = {
            node.number: self._directories[node.report.node_id]
            for node in nodes
            if node.report.node_id in self._directories
        }
