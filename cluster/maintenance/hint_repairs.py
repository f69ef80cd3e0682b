"""Acts on the hints of this worker's reads and writes: a chunk that one of them found short of a piece is repaired.

Whoever is short of pieces without anybody having read it is found by the survey, not here.
"""

from __future__ import annotations

import logging

from cluster.maintenance.repairer import Repairer
from cluster.repair_hints import RepairHint, RepairHints
from storage.base.errors import ChunkError, Corrupt, NotEnoughNodes, Refused, Unavailable
from storage.base.ids import split_stored_index

REPAIR_INTERVAL_S = 5.0
CHUNKS_PER_RUN_MAX = 64
HINT_REPAIR_BYTES_PER_S = 64 << 20
"""of one worker: a bad disk must not take all its time"""

_log = logging.getLogger(__name__)


class HintRepairs:
    """One per worker; `run` is called by a background loop."""

    def __init__(self, repairer: Repairer, hints: RepairHints) -> None:
        self._repairer = repairer
        self._hints = hints

    async def run(self) -> None:
        """Repair what was hinted at, a bounded number of chunks. When no node takes a piece, the rest waits as well: a
        look reads whole chunks, which is not worth repeating until there is room."""
        for _ in range(CHUNKS_PER_RUN_MAX):
            taken = self._hints.take(1)
            if not taken:
                return
            try:
                is_settled = await self._repair(taken[0])
            except NotEnoughNodes as error:
                _log.info("chunk %s is not repaired yet: %s", taken[0].chunk_id, error)
                self._hints.restore(taken[0])
                return
            except Corrupt as error:
                _log.error("chunk %s: %s", taken[0].chunk_id, error)
            except (ChunkError, Unavailable, Refused) as error:
                _log.info("chunk %s is left to others: %s", taken[0].chunk_id, error)
            else:
                if not is_settled:
                    # Another repairer was quicker, and what it named may be what this one put something else in the
                    # place of. No listing tells of that: only who looks at the bytes.
                    self._hints.restore(taken[0])

    async def _repair(self, hint: RepairHint) -> bool:
        """Whether the chunk needs no further look. A hint may be of a layout that the blob has no longer: then its
        present pieces are looked at, which costs a little and is right."""
        _, chunk_index = split_stored_index(hint.chunk_id.chunk_index)
        repaired = await self._repairer.repair(hint.chunk_id.blob_id, chunk_index, deep=True)
        return repaired.is_settled
