"""Calls from a background job to datanodes: each with a deadline; a node that fails once is left alone for the run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cluster.nodes import Datanode, NodePool
from storage.base.errors import ChunkError, Corrupt, Unavailable

CALL_DEADLINE_S = 60.0

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class NodeCalls:
    """One per run of a job."""

    def __init__(self, nodes: NodePool, deadline_s: float = CALL_DEADLINE_S) -> None:
        self.unreachable: set[int] = set()
        """numbers of nodes that failed during this run"""
        self._nodes = nodes
        self._deadline_s = deadline_s

    async def call(self, number: int, operation: Callable[[Datanode], Awaitable[_T]]) -> _T | None:
        """The operation's answer; None when the node failed, now or before in this run."""
        if number in self.unreachable:
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                return await operation(self._nodes.store(number))
        except (ChunkError, Corrupt, Unavailable, TimeoutError) as error:
            _log.info("node %d is left alone for this run: %s", number, error or "too late")
            self.unreachable.add(number)
            return None
