"""Asks a master: for the cluster map, by long polls so that a change is known at once, and for what status shows.

It keeps nothing but the epoch of the last answer; who calls it keeps the last map while the master is away. A master
that stands by says who is active: details of the Unavailable, `active`, hold that address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from cluster.registry.app import LEASE, MAP, MasterRole
from storage.base.address import Address
from storage.base.errors import NotActiveMaster, Unavailable
from storage.base.internal_auth import MASTER_NODE_ID, ROLE_MASTER, access_token, derive_node_key
from storage.base.internal_client import Deadlines, InternalClient
from storage.datanode import wire
from storage.model import ClusterMap

POLL_WAIT_S = 2.0
"""a master that was stopped (SIGSTOP) is noticed by a poll that is not answered, so polls are short"""
ANSWER_BYTES_MAX = 8 * 1024 * 1024
PROMPT_S = 2.0
"""for an answer that waits for nothing"""
TAKEOVER_S = 6.0
"""after this long without its active master a cluster of several has another one"""
TAKEOVER_PAUSE_S = 0.25
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
        cluster_map = _decode_map(body)
        self._epoch = cluster_map.epoch
        return cluster_map

    async def fetch_role(self) -> MasterRole:
        """Whether it is the active one."""
        try:
            return msgspec.json.decode(await self.call("GET", LEASE), type=MasterRole)
        except msgspec.MsgspecError as error:
            raise Unavailable(f"the master answered strangely: {error}") from None

    async def call(self, method: str, target: str, body: bytes | None = None, *, timeout_s: float = PROMPT_S) -> bytes:
        """Any request of app.py; the answer's body. Unavailable with the master's reason when it is not 200."""
        answer = await self._client.call(method, target, body, timeout_s=timeout_s, answer_bytes_max=ANSWER_BYTES_MAX)
        if answer.status != 200:
            reason = wire.parse_failure_text(answer.body) or answer.body[:300].decode("utf-8", "replace")
            active = answer.headers.get(wire.ACTIVE_MASTER_HEADER, "")
            raise Unavailable(
                f"the master at {self.address} answered {answer.status}: {reason}",
                status=str(answer.status),
                active=active,
                error=answer.headers.get(wire.ERROR_HEADER, ""),
            )
        return answer.body

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class ActiveMaster:
    """Whichever of these masters is the active one, for a command; while one takes over, that is waited for."""

    def __init__(self, masters: Sequence[MasterClient]) -> None:
        self._masters = list(masters)

    async def call(self, method: str, target: str, body: bytes | None = None, *, timeout_s: float = PROMPT_S) -> bytes:
        """As MasterClient.call. Unavailable also when none is active for TAKEOVER_S; safe for requests that may be
        made twice, as all of the master's are."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + (TAKEOVER_S if len(self._masters) > 1 else 0.0)
        while True:
            for master in list(self._masters):
                try:
                    return await self._try(master, method, target, body, timeout_s)
                except Unavailable as error:
                    if not _is_elsewhere(error):
                        raise
                    failure = error
            if loop.time() + TAKEOVER_PAUSE_S > end_s:
                raise failure
            await asyncio.sleep(TAKEOVER_PAUSE_S)

    async def fetch_map(self) -> ClusterMap:
        """As it is now."""
        return _decode_map(await self.call("GET", MAP))

    async def fetch_roles(self) -> list[tuple[Address, MasterRole | None]]:
        """What each master says of itself; None for one that does not answer."""
        return [(master.address, await _find_role(master)) for master in self._masters]

    async def close(self) -> None:
        """Close all connections."""
        for master in self._masters:
            await master.close()

    async def _try(self, master: MasterClient, method: str, target: str, body: bytes | None, timeout_s: float) -> bytes:
        """The one that answered is asked first from then on."""
        answer = await master.call(method, target, body, timeout_s=timeout_s)
        self._masters.sort(key=lambda other: other is not master)
        return answer


async def _find_role(master: MasterClient) -> MasterRole | None:
    try:
        return await master.fetch_role()
    except Unavailable:
        return None


def _is_elsewhere(error: Unavailable) -> bool:
    """Whether another master may know better: this one does not answer, or stands by."""
    return "status" not in error.details or error.details.get("error") == NotActiveMaster.__name__


def _decode_map(body: bytes) -> ClusterMap:
    try:
        return _cluster_map.decode(body)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the master answered strangely: {error}") from None
