"""`/-/healthy`, `/-/ready` and `/-/metrics`: outside the bucket namespace, for supervisors and load balancers.

No bucket name begins with a hyphen, so these paths hide nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from s3gw.metrics import CONTENT_TYPE, RequestMetrics
from storage.base.errors import FrostbyteError

READY_TIMEOUT_S = 5.0
PREFIX = "/-/"


def create_service_pages(ready: Callable[[], Awaitable[bool]], metrics: RequestMetrics) -> Starlette:
    """The three pages, as an application. ready: whether a write would succeed now."""

    async def healthy(_: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    async def tell_ready(_: Request) -> Response:
        """200 only when a write would succeed now."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                is_ready = await ready()
        except (FrostbyteError, TimeoutError):
            is_ready = False
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", 200 if is_ready else 503)

    async def measured(_: Request) -> Response:
        """Prometheus text."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    routes = [
        Route(f"{PREFIX}healthy", healthy),
        Route(f"{PREFIX}ready", tell_ready),
        Route(f"{PREFIX}metrics", measured),
    ]
    return Starlette(routes=routes, exception_handlers={Exception: _answer_failure})


async def _answer_failure(_: Request, __: Exception) -> Response:
    return PlainTextResponse("internal error\n", 500)
