"""What the supervisor tells a process that was forked for it. PURE.

In JSON by the standard library: the supervisor sends a few of them, and would hold more for a faster format than they
are worth.
"""

from __future__ import annotations

import json
from typing import NamedTuple

ORDERS_BYTES_MAX = 64 << 10


class Orders(NamedTuple):
    """The descriptors come with it, in the order of their numbers here."""

    arguments: tuple[str, ...]
    """of a whole command line"""
    variables: dict[str, str]
    """set in the environment"""
    descriptors: tuple[int, ...]
    """the numbers that the child must have them under"""

    def encode(self) -> bytes:
        """As one packet."""
        return json.dumps(self).encode()


def decode_orders(packet: bytes) -> Orders:
    """What `encode` made."""
    arguments, variables, descriptors = json.loads(packet)
    return Orders(tuple(arguments), variables, tuple(descriptors))
