"""The public socket: bound once by the parent, so that all gateway workers accept on it, and no restart closes it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable

from s3gw.config import ConfigError, parse_listen

LISTEN_BACKLOG = 4096
READY_TIMEOUT_S = 30.0
"""then the log says that it takes long; it is waited for all the same"""
READY_ATTEMPT_S = 5.0
READY_POLL_S = 0.02
ANSWER_HEAD_BYTES_MAX = 4096
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound

_log = logging.getLogger(__name__)


def open_listener(listen: str) -> socket.socket:
    """The socket that all gateway workers accept on. ConfigError when it cannot be had."""
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {listen}: {error.strerror or error}") from error
    return listener


def require_tls_files(certificate: str, private_key: str) -> None:
    """Prove that a certificate and its key can be shown, where they are given at all. ConfigError."""
    if not certificate:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot load {certificate} and {private_key}: {error.strerror or error}") from None


def make_readiness(listener: socket.socket, *, is_tls: bool) -> Callable[[], Awaitable[None]]:
    """Something to await until /-/ready says that a write would succeed."""
    host, port = listener.getsockname()[:2]
    context = trust_any_certificate() if is_tls else None

    async def wait() -> None:
        late = asyncio.get_running_loop().call_later(READY_TIMEOUT_S, _log.warning, "not ready yet; /-/ready tells")
        try:
            while not await is_ready(host, port, context):  # noqa: ASYNC110 - another process
                await asyncio.sleep(READY_POLL_S)
        finally:
            late.cancel()

    return wait


def trust_any_certificate() -> ssl.SSLContext:
    """For a question to this machine's own socket: whatever certificate it shows is the configured one."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def is_ready(host: str, port: int, context: ssl.SSLContext | None) -> bool:
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
