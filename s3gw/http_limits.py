"""What bounds a gateway's HTTP. Heads and stalls: storage.base.internal_server."""

from __future__ import annotations

from typing import NamedTuple


class HttpLimits(NamedTuple):
    """Per worker."""

    headers_max: int = 100
    connections_max: int = 4096
    requests_max: int = 1024
    """at once; the next one is told to slow down"""
    idle_s: int = 75
    """of a kept-alive connection"""
    drain_s: int = 20
    """for the requests under way when the gateway is told to stop"""


DEFAULT_LIMITS = HttpLimits()
