"""The registry at work: takes reports, ticks and orders in, records what changes in the metadata, publishes the map.

Every master has one; what it holds is the cluster's between `load` and `suspend`, while its master is the active one.
Everything recorded carries the term of that time, and is refused with NotActiveMaster after another master took over.

Write order: 1. decide (state.py), 2. record in the metadata, 3. publish the new map. A crash between 2 and 3 is a
master that starts again from what was recorded. Without the metadata nothing changes state: leases are still renewed,
and what is due is decided again with the next tick or report.

A write whose outcome is not known (its answer was lost) may be applied or not, and published it is not: so what this
master holds of the node is recorded again before anything else is decided, with the next tick or order at the latest.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cluster.registry import state as pure
from cluster.registry.state import Holdings, RemovalStep, ReportRefused, Timing, Transition
from storage.base.clock import Clock
from storage.base.errors import Refused
from storage.datanode.wire import HeartbeatAnswer
from storage.metadata.commands import Command, RegisterNode, SetNodeClosed, SetNodeState
from storage.metadata.interface import Metadata
from storage.model import ClusterMap, Node, NodeReport, NodeState

_log = logging.getLogger(__name__)

__all__ = ["Registry", "ReportRefused"]


class Registry:
    """One cluster's nodes. `load` before anything else; used on one event loop."""

    def __init__(self, cluster_id: str, metadata: Metadata, clock: Clock, timing: Timing) -> None:
        self._cluster_id = cluster_id
        self._metadata = metadata
        self._clock = clock
        self._timing = timing
        self._state = pure.begin(ClusterMap(0), clock.monotonic_s())
        self._recording = asyncio.Lock()
        self._changed = asyncio.Event()
        self._suspended = True
        self._term = 0
        self._doubtful: set[str] = set()
        """ids of nodes of which it is not known what is recorded"""

    @property
    def cluster_map(self) -> ClusterMap:
        """As published last."""
        return self._state.cluster_map

    @property
    def term(self) -> int:
        """Of the lease under which this master acts; what its jobs write carries it."""
        return self._term

    @property
    def unheard(self) -> frozenset[int]:
        """See state.list_unheard."""
        return pure.list_unheard(self._state, self._timing, self._clock.monotonic_s())

    @property
    def awaited(self) -> frozenset[int]:
        """See state.list_awaited."""
        return pure.list_awaited(self._state, self._timing, self._clock.monotonic_s())

    async def load(self, term: int = 0) -> None:
        """Begin with what was recorded; term: of the lease under which. Everybody gets the whole time to report.
        Unavailable."""
        async with self._recording:
            self._term = term
            recorded = await self._metadata.cluster_map()
            self._state = pure.begin(recorded, self._clock.monotonic_s())
            self._doubtful.clear()
            self._suspended = False

    async def heartbeat(self, report: NodeReport) -> HeartbeatAnswer:
        """Register the node or renew its lease. ReportRefused, Unavailable, NotActiveMaster."""
        becomes = self._evaluate(report)
        if pure.must_record(self._state, report, becomes):
            await self._record(report)
        else:
            self._renew(report)
        joining = becomes is NodeState.JOINING
        interval_s = self._timing.joining_interval_s if joining else self._timing.heartbeat_interval_s
        return HeartbeatAnswer(self.cluster_map.epoch, interval_s, becomes)

    async def tick(self) -> None:
        """Note who has been silent for too long. Unavailable: tried again with the next tick."""
        async with self._recording:
            self._state, transitions = pure.tick(self._state, self._timing, self._clock.monotonic_s())
            await self._settle()
            for transition in transitions:
                # Decided again: the node may have been heard of while another one was recorded.
                if transition in pure.tick(self._state, self._timing, self._clock.monotonic_s())[1]:
                    await self._apply(transition)

    async def drain(self, node_id: str) -> None:
        """Begin to empty a node. ReportRefused, Unavailable, NotActiveMaster."""
        async with self._deciding():
            await self._apply(pure.plan_drain(self._state, node_id))

    async def resume(self, node_id: str) -> None:
        """Take a drain back; a closed node is open again. ReportRefused, Unavailable, NotActiveMaster."""
        async with self._deciding():
            await self._apply(pure.plan_resume(self._state, node_id))

    async def close(self, node_id: str) -> None:
        """Let no commit name the draining node any more. ReportRefused, Unavailable, NotActiveMaster."""
        async with self._deciding():
            if not pure.plan_close(self._state, node_id):
                return
            await self._write(node_id, SetNodeClosed(node_id, True, self._term))
            self._publish(pure.apply_closing(self._state, node_id))
            _log.warning("node %s is closed", node_id)

    async def remove(self, node_id: str, holdings: Holdings | None, *, force: bool = False) -> None:
        """An operator's order: as far as it can go now, and over when the node is gone. ReportRefused says what has to
        happen first: order it again then. holdings: None before a walk knew them. Unavailable, NotActiveMaster."""
        steps = {RemovalStep.DRAIN: self.drain, RemovalStep.CLOSE: self.close, RemovalStep.RETIRE: self.retire}
        while (step := pure.plan_removal(self._state, node_id, holdings, force=force)) is not RemovalStep.DONE:
            await steps[step](node_id)

    async def retire(self, node_id: str) -> None:
        """The drained node is empty: it is gone for good. ReportRefused, Unavailable, NotActiveMaster."""
        async with self._deciding():
            await self._apply(pure.plan_retire(self._state, node_id))

    async def wait_for_map(self, known_epoch: int, wait_s: float) -> ClusterMap:
        """The map as soon as its epoch is another than the caller's, at the latest after wait_s (or when suspended)."""
        try:
            async with asyncio.timeout(wait_s):
                while self.cluster_map.epoch == known_epoch and not self._suspended:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.cluster_map

    def suspend(self) -> None:
        """Let go of everybody who waits for a map, now and until it is loaded again."""
        self._suspended = True
        self._wake()

    def _evaluate(self, report: NodeReport) -> NodeState:
        return pure.evaluate_report(self._state, report, self._cluster_id, self._timing, self._clock.monotonic_s())

    def _renew(self, report: NodeReport) -> None:
        self._state = pure.renew(self._state, report, self._clock.monotonic_s(), self._clock.now_ms())

    async def _record(self, report: NodeReport) -> None:
        """One at a time: decided again under the lock, as another report of the node may have been recorded."""
        known = self._state.find(report.node_id)
        if known is not None and known.report.address == report.address:  # of another address only once it is recorded
            self._state = pure.note_heard(self._state, report, self._clock.monotonic_s())
        async with self._recording:
            before = self._state.find(report.node_id)
            becomes = self._evaluate(report)
            if not pure.must_record(self._state, report, becomes):
                self._renew(report)
                return
            node: Node = await self._write(report.node_id, RegisterNode(report, becomes, self._term))
            self._publish(pure.record_node(self._state, node, self._clock.monotonic_s()))
        if before is None or before.state is not becomes:
            _log.info("node %d %s at %s is %s", node.number, report.node_id, report.address, becomes.value)

    async def _apply(self, transition: Transition | None) -> None:
        if transition is None:
            return
        await self._write(transition.node_id, SetNodeState(transition.node_id, transition.state, self._term))
        self._publish(pure.apply_transition(self._state, transition))
        _log.warning("node %s is %s", transition.node_id, transition.state.value)

    @asynccontextmanager
    async def _deciding(self) -> AsyncIterator[None]:
        """One decision at a time, over what is known to be recorded. Unavailable."""
        async with self._recording:
            await self._settle()
            yield

    async def _settle(self) -> None:
        for node_id in list(self._doubtful):
            node = self._state.find(node_id)
            if node is not None:  # else it is to be registered yet, by a report
                await self._write(node_id, RegisterNode(node.report, node.state, self._term))
                await self._write(node_id, SetNodeClosed(node_id, node.is_closed, self._term))
                _log.warning("node %s is recorded as %s again: an answer was lost", node_id, node.state.value)
            self._doubtful.discard(node_id)

    async def _write(self, node_id: str, command: Command) -> Any:
        try:
            return await self._metadata.apply(command)
        except BaseException as error:  # a caller that is cancelled knows no more than one whose answer was lost
            if not isinstance(error, Refused):
                self._doubtful.add(node_id)
            raise

    def _publish(self, state: pure.RegistryState) -> None:
        self._state = state
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
