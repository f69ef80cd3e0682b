"""What a stage of children is waited for with: that somebody accepts, or that a write would succeed.

As data, so that one process can plan the stages and another run them; and without a library, as the one that runs them
stays for as long as the server does.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from storage.base.errors import Unavailable

if TYPE_CHECKING:
    from ssl import SSLContext

READY_TIMEOUT_S = 30.0
"""then the log says that it takes long; it is waited for all the same"""
READY_ATTEMPT_S = 5.0
READY_POLL_S = 0.02
ANSWER_HEAD_BYTES_MAX = 4096
SOCKET_TIMEOUT_S = 60.0
SOCKET_POLL_S = 0.005
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound

_log = logging.getLogger(__name__)


class SocketReadiness(NamedTuple):
    """Of a role that listens on a Unix socket."""

    path: str

    async def wait(self) -> None:
        """Until somebody accepts connections there. Unavailable past SOCKET_TIMEOUT_S."""
        try:
            async with asyncio.timeout(SOCKET_TIMEOUT_S):
                while not await self._accepts():  # noqa: ASYNC110 - another process
                    await asyncio.sleep(SOCKET_POLL_S)
        except TimeoutError:
            raise Unavailable(f"nothing accepts at {self.path} after {SOCKET_TIMEOUT_S:g} s") from None

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(self.path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        writer.close()
        return True


class GatewayReadiness(NamedTuple):
    """Of gateways, at the address that they listen on."""

    host: str
    port: int
    is_tls: bool

    async def wait(self) -> None:
        """Until /-/ready says that a write would succeed."""
        context = trust_any_certificate() if self.is_tls else None
        late = asyncio.get_running_loop().call_later(READY_TIMEOUT_S, _log.warning, "not ready yet; /-/ready tells")
        try:
            while not await is_ready(self.host, self.port, context):  # noqa: ASYNC110 - another process
                await asyncio.sleep(READY_POLL_S)
        finally:
            late.cancel()


def trust_any_certificate() -> SSLContext:
    """For a question to this machine's own socket: whatever certificate it shows is the configured one."""
    ssl = importlib.import_module("ssl")  # megabytes that nobody else here needs
    context: SSLContext = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def is_ready(host: str, port: int, context: SSLContext | None) -> bool:
    """Whether /-/ready says 200 there. host: as listened on."""
    host = _WILDCARDS.get(host, host)
    try:
        async with asyncio.timeout(READY_ATTEMPT_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=ANSWER_HEAD_BYTES_MAX)
            try:
                writer.write(b"GET /-/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError):  # ValueError: a line that is longer than any status line
        return False
