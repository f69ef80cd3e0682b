"""create_app(): the gateway as one ASGI application.

S3 requests take the short way, straight to the dispatcher. Only `/-/…` goes through Starlette, whose routing can add
nothing where the bucket and the key are the whole path. On a virtual host `/-/…` is an object key like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from s3gw.call import Services
from s3gw.dispatch import Dispatcher
from s3gw.health import PREFIX, create_service_pages
from s3gw.metrics import RequestMetrics
from s3gw.protocol.routing import find_virtual_bucket
from s3gw.respond import Receive, Send


class GatewayApp:
    """What uvicorn serves."""

    def __init__(self, services: Services, ready: Callable[[], Awaitable[bool]] | None = None) -> None:
        self.metrics = RequestMetrics(services.operations.reads, services.operations.writes)
        self._domains = services.settings.domains
        self._dispatch = Dispatcher(services, self.metrics)
        self.short_way = self._dispatch.short_way
        """what the server asks first"""
        self._service_pages = create_service_pages(ready or services.operations.ready, self.metrics)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        if self._is_service_page(scope):
            await self._service_pages(scope, receive, send)
        else:
            await self._dispatch(scope, receive, send)

    def _is_service_page(self, scope: dict[str, Any]) -> bool:
        if not scope["path"].startswith(PREFIX):
            return False
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return not find_virtual_bucket(host.decode("latin-1"), self._domains)


def create_app(services: Services, ready: Callable[[], Awaitable[bool]] | None = None) -> GatewayApp:
    """The application over everything that outlives a request. ready: whether a write would succeed now, where that
    is not this process's to say alone."""
    return GatewayApp(services, ready)
