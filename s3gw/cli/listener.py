"""The public socket: bound once by the parent, so that all gateway workers accept on it, and no restart closes it."""

from __future__ import annotations

import socket
import ssl

from s3gw.cli.readiness import GatewayReadiness
from s3gw.cli.supervisor import Ready
from s3gw.config import ConfigError, parse_listen

LISTEN_BACKLOG = 4096


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


def make_readiness(listener: socket.socket, *, is_tls: bool) -> Ready:
    """Something to await until /-/ready says that a write would succeed."""
    host, port = listener.getsockname()[:2]
    return GatewayReadiness(host, port, is_tls).wait
