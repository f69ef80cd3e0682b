"""Tells every configured master who and where this datanode is, how full it is, and that it lives.

The first report registers the node, every further one renews its lease. Each master is told by a loop of its own, so
that one that is away delays no other; the datanode serves whether or not any of them answers. A master that stands by
is told as often as the active one, so that it hears of the node soon after it took over.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from storage.base.address import Address
from storage.base.background import EAGER_S, BackgroundLoop, LoopStatus
from storage.base.errors import Unavailable
from storage.base.internal_auth import NODE_HEADER, report_token
from storage.base.internal_client import Deadlines, InternalClient
from storage.datanode import wire
from storage.model import NodeReport, NodeState

INTERVAL_S = 2.0
"""until a master says otherwise"""
STANDBY_INTERVAL_S = 1.0
BACKOFF_MAX_S = 2.0
"""a master that comes back must hear of its nodes before it suspects them"""
ANSWER_BYTES_MAX = 64 * 1024
DEADLINES = Deadlines(connect_s=2.0, progress_s=2.0, answer_s=5.0)

_log = logging.getLogger(__name__)

ReportMaker = Callable[[], Awaitable[NodeReport]]
StateListener = Callable[[NodeState], None]


def _ignore(_: NodeState) -> None:
    """Nobody listens."""


class MasterLink:
    """The heartbeats to one master."""

    def __init__(
        self,
        address: Address,
        node_id: str,
        node_key: bytes,
        make_report: ReportMaker,
        tls_ca: str | None,
        hear: StateListener = _ignore,
    ) -> None:
        self._make_report = make_report
        self._hear = hear
        self._client = InternalClient(
            address,
            report_token(node_key),
            tls_ca=tls_ca,
            deadlines=DEADLINES,
            unreachable=Unavailable,
            connections_max=1,
            headers={NODE_HEADER: node_id},
        )
        self.epoch = 0
        """of the cluster map, as this master said last; 0 before the first answer"""
        self.loop = BackgroundLoop(
            f"heartbeat to {address}", INTERVAL_S, self.send_report, backoff_max_s=BACKOFF_MAX_S, eager_s=EAGER_S
        )

    async def send_report(self) -> None:
        """One heartbeat. Unavailable when the master does not answer or does not accept it."""
        body = wire.encode(await self._make_report())
        answer = await self._client.call("POST", wire.HEARTBEAT, body, answer_bytes_max=ANSWER_BYTES_MAX)
        # A master that knows of no active one is about to be it, as at a start: it is asked again soon.
        if wire.ACTIVE_MASTER_HEADER in answer.headers:
            self.loop.interval_s = STANDBY_INTERVAL_S
            return
        if answer.status != 200:
            if answer.headers.get(wire.ERROR_HEADER) == wire.NODE_RETIRED:
                self._hear(NodeState.GONE)
            said = wire.parse_failure_text(answer.body)
            raise Unavailable(f"the master at {self._client.address} answered {answer.status} {said}".rstrip())
        try:
            heard = wire.parse_heartbeat_answer(answer.body)
        except ValueError as error:
            raise Unavailable(f"the master at {self._client.address} answered strangely: {error}") from error
        if not self.epoch:
            _log.info("registered with the master at %s, epoch %d", self._client.address, heard.epoch)
        self.epoch = heard.epoch
        self._hear(heard.state)
        self.loop.interval_s = heard.heartbeat_interval_s

    async def close(self) -> None:
        """No heartbeat after this."""
        await self.loop.stop()
        await self._client.close()


class Heartbeats:
    """The heartbeats to all masters of the configuration."""

    def __init__(
        self,
        masters: Sequence[Address],
        node_id: str,
        node_key: bytes,
        make_report: ReportMaker,
        tls_ca: str | None = None,
        hear: StateListener = _ignore,
    ) -> None:
        """hear: told what the node is to the active master, each time that it says so."""
        self.links = [MasterLink(address, node_id, node_key, make_report, tls_ca, hear) for address in masters]

    def start(self) -> None:
        """Begin; call it once the node can be reached at the address that it reports."""
        for link in self.links:
            link.loop.start()

    @property
    def statuses(self) -> list[LoopStatus]:
        """One per master."""
        return [link.loop.status for link in self.links]

    async def close(self) -> None:
        """Stop all."""
        for link in self.links:
            await link.close()
