"""How much of what a worker wrote went straight into directories on this machine, past their datanodes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class WriteCounts:
    """Since the worker began."""

    near_bytes: int = 0
    """sealed ones, of pieces that were stored without being sent"""
    near_pieces: int = 0

    def add(self, length: int) -> None:
        """One piece of so many sealed bytes is durable."""
        self.near_bytes += length
        self.near_pieces += 1
