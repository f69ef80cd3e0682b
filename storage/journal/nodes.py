"""Clients of the datanodes' journal files, one for each node of the registry, made anew where its address changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from storage.base.address import parse_address
from storage.base.internal_auth import ROLE_DATANODE, access_token, derive_node_key
from storage.datanode.journal_client import JournalClient
from storage.model import Node


class JournalNodes:
    """Holds the internal key. Used from one event loop; closed once."""

    def __init__(self, internal_key: bytes, tls_ca: str | None) -> None:
        self._internal_key = internal_key
        self._tls_ca = tls_ca
        self._clients: dict[int, JournalClient] = {}

    async def adopt(self, nodes: Iterable[Node]) -> None:
        """Close the clients of nodes that are not among these any more, or are elsewhere now."""
        addresses = {node.number: node.report.address for node in nodes}
        for number, client in list(self._clients.items()):
            if addresses.get(number) != str(client.address):
                del self._clients[number]
                await client.close()

    def client(self, node: Node) -> JournalClient:
        """OSError or ValueError where the records say something that cannot be."""
        client = self._clients.get(node.number)
        if client is None:
            token = access_token(derive_node_key(self._internal_key, ROLE_DATANODE, node.report.node_id))
            client = JournalClient(parse_address(node.report.address), token, tls_ca=self._tls_ca)
            self._clients[node.number] = client
        return client

    def replicas(self, nodes: Sequence[Node]) -> list[tuple[Node, JournalClient]]:
        """Each with its client."""
        return [(node, self.client(node)) for node in nodes]

    async def close(self) -> None:
        """Close them all."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
