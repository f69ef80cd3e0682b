"""A gateway's view of the cluster: the map, kept current by long polls to the master in the background.

When the master is away the last map stays, since whether a node works is seen on every call to it; a gateway that
starts while the master is away begins with what the metadata recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import msgspec

from cluster.registry.app import MAP
from storage.base.address import Address, parse_address
from storage.base.background import BackgroundLoop, LoopStatus
from storage.base.errors import NodeUnreachable, Unavailable
from storage.base.internal_auth import MASTER_NODE_ID, ROLE_MASTER, access_token, derive_node_key
from storage.base.internal_client import Deadlines, InternalClient
from storage.metadata.interface import Metadata
from storage.model import ClusterMap, Node

POLL_WAIT_S = 10.0
POLL_PAUSE_S = 0.02
"""between two polls; bounds what a master that answers at once can cost"""
FIRST_ANSWER_S = 1.0
BACKOFF_MAX_S = 2.0
MAP_BYTES_MAX = 8 * 1024 * 1024
_DEADLINES = Deadlines(connect_s=2.0, progress_s=2.0, answer_s=POLL_WAIT_S + 5.0)

_log = logging.getLogger(__name__)
_cluster_map = msgspec.msgpack.Decoder(ClusterMap)

MapListener = Callable[[ClusterMap], Awaitable[None]]


async def _ignore(_: ClusterMap) -> None:
    return None


class MasterClient:
    """Keeps one ClusterMap. `start` before use, `close` once. on_map: called with every new map, first within start."""

    def __init__(
        self,
        address: Address,
        internal_key: bytes,
        metadata: Metadata,
        *,
        on_map: MapListener = _ignore,
        tls_ca: str | None = None,
    ) -> None:
        token = access_token(derive_node_key(internal_key, ROLE_MASTER, MASTER_NODE_ID))
        self._client = InternalClient(
            address, token, tls_ca=tls_ca, deadlines=_DEADLINES, unreachable=Unavailable, connections_max=2
        )
        self._metadata = metadata
        self._on_map = on_map
        self._map = ClusterMap(-1)
        self._polled_epoch = -1
        self._numbers: dict[int, Node] = {}
        self._loop = BackgroundLoop(f"map from {address}", POLL_PAUSE_S, self._poll, backoff_max_s=BACKOFF_MAX_S)

    @property
    def cluster_map(self) -> ClusterMap:
        """The newest map known here."""
        return self._map

    @property
    def nodes_by_number(self) -> dict[int, Node]:
        """Of the newest map; not to be changed."""
        return self._numbers

    @property
    def status(self) -> LoopStatus:
        """How the polls go."""
        return self._loop.status

    def address_of(self, number: int) -> Address:
        """Where a node is. NodeUnreachable when no map has it."""
        node = self._numbers.get(number)
        if node is None:
            raise NodeUnreachable(f"no node has the number {number}")
        return parse_address(node.report.address)

    async def start(self) -> None:
        """Have a map, from the master or else from the metadata, and keep it current. Unavailable without both."""
        try:
            await self._adopt(await self._fetch(-1, 0, FIRST_ANSWER_S))
            self._polled_epoch = self._map.epoch
        except Unavailable as error:
            _log.warning("beginning with the recorded cluster map: %s", error)
            await self._adopt(await self._metadata.cluster_map())
        self._loop.start()

    async def call(self, method: str, target: str) -> bytes:
        """Any other request to the master, for status and orders. Unavailable, with its reason if it gave one."""
        answer = await self._client.call(method, target, answer_bytes_max=MAP_BYTES_MAX)
        if answer.status != 200:
            raise Unavailable(f"the master answered {answer.status}: {answer.body[:200]!r}", status=str(answer.status))
        return answer.body

    async def close(self) -> None:
        """The map stays as it is."""
        await self._loop.stop()
        await self._client.close()

    async def _poll(self) -> None:
        # After a failure the next poll is answered at once: a master that started again may use an epoch twice.
        epoch, self._polled_epoch = self._polled_epoch, -1
        cluster_map = await self._fetch(epoch, POLL_WAIT_S, None)
        await self._adopt(cluster_map)
        self._polled_epoch = cluster_map.epoch

    async def _fetch(self, epoch: int, wait_s: float, timeout_s: float | None) -> ClusterMap:
        target = f"{MAP}?wait_s={wait_s:g}" + (f"&epoch={epoch}" if epoch >= 0 else "")
        answer = await self._client.call("GET", target, timeout_s=timeout_s, answer_bytes_max=MAP_BYTES_MAX)
        if answer.status != 200:
            raise Unavailable(f"the master answered {answer.status}")
        try:
            return _cluster_map.decode(answer.body)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the master answered strangely: {error}") from None

    async def _adopt(self, cluster_map: ClusterMap) -> None:
        if cluster_map.epoch != self._map.epoch:
            _log.info("cluster map of epoch %d, %d nodes", cluster_map.epoch, len(cluster_map.nodes))
        self._map = cluster_map
        self._numbers = {node.number: node for node in cluster_map.nodes}
        await self._on_map(cluster_map)
