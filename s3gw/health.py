"""`/-/healthy`, `/-/ready` and `/-/metrics`: outside the bucket namespace, for supervisors and load balancers.

No bucket name begins with a hyphen, so these paths hide nothing. Three paths need no router: Starlette, which had them
once, was 2 MiB of an idle server and a twentieth of its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from s3gw.exposition import CONTENT_TYPE
from s3gw.metrics import RequestMetrics
from s3gw.respond import Send
from storage.base.errors import FrostbyteError

READY_TIMEOUT_S = 5.0
PREFIX = "/-/"
PLAIN_TEXT = b"text/plain; charset=utf-8"
_METHODS = ("GET", "HEAD")

_log = logging.getLogger(__name__)


class Page(NamedTuple):
    """One answer."""

    body: bytes
    status: int = 200
    content_type: bytes = PLAIN_TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()


NOT_FOUND = Page(b"Not Found", 404)
NOT_ALLOWED = Page(b"Method Not Allowed", 405, headers=((b"allow", ", ".join(_METHODS).encode()),))
FAILED = Page(b"internal error\n", 500)


class ServicePages:
    """ASGI application. ready: whether a write would succeed now."""

    def __init__(self, ready: Callable[[], Awaitable[bool]], metrics: RequestMetrics) -> None:
        self._ready = ready
        self._metrics = metrics
        self._pages = {
            f"{PREFIX}healthy": self._tell_healthy,
            f"{PREFIX}ready": self._tell_ready,
            f"{PREFIX}metrics": self._tell_metrics,
        }

    async def __call__(self, scope: dict[str, Any], send: Send) -> None:
        """One request, of which nothing but method and path counts."""
        page = await self._make(scope["method"], scope["path"])
        length = (b"content-length", str(len(page.body)).encode())
        headers = [length, (b"content-type", page.content_type), *page.headers]
        await send({"type": "http.response.start", "status": page.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})

    async def _make(self, method: str, path: str) -> Page:
        make = self._pages.get(path)
        if make is None:
            return NOT_FOUND
        if method not in _METHODS:
            return NOT_ALLOWED
        try:
            return await make()
        except Exception:  # noqa: BLE001 - the process's edge: a defect costs one request
            _log.exception("%s %s", method, path)
            return FAILED

    async def _tell_healthy(self) -> Page:
        """The process answers."""
        return Page(b"ok\n")

    async def _tell_ready(self) -> Page:
        """200 only when a write would succeed now."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                is_ready = await self._ready()
        except (FrostbyteError, TimeoutError):
            is_ready = False
        return Page(b"ready\n") if is_ready else Page(b"not ready\n", 503)

    async def _tell_metrics(self) -> Page:
        """Prometheus text."""
        return Page(self._metrics.render(), content_type=CONTENT_TYPE)
