"""How many stored bytes a worker had to read for what it served: whole reads apart from degraded ones."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ReadCounts:
    """Bytes since the worker began. stored: sealed ones, those that were of no use among them; served: plaintext of
    chunks. Degraded is a fetch for which a piece was missing, bad or late, so that others were read in its place."""

    stored_whole: int = 0
    stored_degraded: int = 0
    served_whole: int = 0
    served_degraded: int = 0
    near_bytes: int = 0
    """of the stored ones, those that were read from directories on this machine, past their datanodes"""
    near_refused: int = 0
    """pieces that such a directory should have given and did not, so that the datanode was asked"""

    def add(self, stored_bytes: int, served_bytes: int, *, is_degraded: bool) -> None:
        """One fetch that is over; served_bytes is 0 when it failed."""
        if is_degraded:
            self.stored_degraded += stored_bytes
            self.served_degraded += served_bytes
        else:
            self.stored_whole += stored_bytes
            self.served_whole += served_bytes
