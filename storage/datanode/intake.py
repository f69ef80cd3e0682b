"""Whether this node takes new chunks: not while its master says that it is draining or gone.

Deletes, reads and setting aside go on. A master that stands by says nothing of a node's state, so what was heard last
was said by the active one. A node that has not heard of any takes chunks: it serves whether or not a master is there,
and what a drain must not miss is refused by the records (StalePlacement).
"""

from __future__ import annotations

import logging

from storage.base.errors import NodeFull
from storage.model import NodeState

_CLOSED = frozenset({NodeState.DRAINING, NodeState.GONE})

_log = logging.getLogger(__name__)


class Intake:
    """Open until told otherwise."""

    def __init__(self) -> None:
        self._state = NodeState.UP

    def hear(self, state: NodeState) -> None:
        """What the node is to the active master."""
        if (state in _CLOSED) != (self._state in _CLOSED):
            _log.warning("the node is %s: it takes %s", state.value, "no new chunks" if state in _CLOSED else "chunks")
        self._state = state

    def require(self) -> None:
        """NodeFull while no new chunk is taken."""
        if self._state in _CLOSED:
            raise NodeFull(f"the node is {self._state.value}")
