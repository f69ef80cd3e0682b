"""Asks a master: for the cluster map, by long polls so that a change is known at once, and for what status shows.

It keeps nothing but the epoch of the last answer; who calls it keeps the last map while the master is away. A master
that stands by says who is active: details of the Unavailable, `active`, hold that address.
"""

from __future__ import annotations

import msgspec

from cluster.registry.app import LEASE, MAP, MasterRole
from storage.base.address import Address
from storage.base.errors import Unavailable
from storage.base.internal_auth import MASTER_NODE_ID, ROLE_MASTER, access_token, derive_node_key
from storage.base.internal_client import Deadlines, InternalClient
from storage.datanode import wire
from storage.model import ClusterMap

POLL_WAIT_S = 2.0
"""a master that was stopped (SIGSTOP) is noticed by a poll that is not answered, so polls are short"""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
PROMPT_S = 2.0
"""for an answer that waits for nothing"""
_DEADLINES = Deadlines(connect_s=PROMPT_S, progress_s=PROMPT_S, answer_s=PROMPT_S)
_UNKNOWN_EPOCH = -1

_cluster_map = msgspec.msgpack.Decoder(ClusterMap)


class MasterClient:
    """One master. Made anywhere, used on one event loop, closed once. Every call may raise Unavailable."""

    def __init__(self, address: Address, internal_key: bytes, *, tls_ca: str | None = None) -> None:
        token = access_token(derive_node_key(internal_key, ROLE_MASTER, MASTER_NODE_ID))
        self._client = InternalClient(
            address, token, tls_ca=tls_ca, deadlines=_DEADLINES, unreachable=Unavailable, connections_max=4
        )
        self._epoch = _UNKNOWN_EPOCH

    @property
    def address(self) -> Address:
        """Where it is."""
        return self._client.address

    async def fetch_map(self) -> ClusterMap:
        """The map: at once the first time and after a failure, later when it has changed or POLL_WAIT_S have passed.

        An unchanged epoch comes with newer figures. For one caller in a loop.
        """
        # Forgotten until the answer is here: a master that was started again may use an epoch a second time.
        epoch, self._epoch = self._epoch, _UNKNOWN_EPOCH
        wait_s = 0.0 if epoch == _UNKNOWN_EPOCH else POLL_WAIT_S
        query = "" if epoch == _UNKNOWN_EPOCH else f"?epoch={epoch}&wait_s={wait_s:g}"
        body = await self.call("GET", MAP + query, timeout_s=wait_s + PROMPT_S)
        try:
            cluster_map = _cluster_map.decode(body)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the master answered strangely: {error}") from None
        self._epoch = cluster_map.epoch
        return cluster_map

    async def fetch_role(self) -> MasterRole:
        """Whether it is the active one."""
        try:
            return msgspec.json.decode(await self.call("GET", LEASE), type=MasterRole)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the master answered strangely: {error}") from None

    async def call(self, method: str, target: str, *, timeout_s: float = PROMPT_S) -> bytes:
        """Any request of app.py; the answer's body. Unavailable with the master's reason when it is not 200."""
        answer = await self._client.call(method, target, timeout_s=timeout_s, answer_bytes_max=ANSWER_BYTES_MAX)
        if answer.status != 200:
            reason = wire.parse_failure_text(answer.body) or answer.body[:300].decode("utf-8", "replace")
            active = answer.headers.get(wire.ACTIVE_MASTER_HEADER, "")
            raise Unavailable(
                f"the master at {self.address} answered {answer.status}: {reason}",
                status=str(answer.status),
                active=active,
            )
        return answer.body

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
