"""PURE. Where a process listens and where others find it, as text that fits a config file and a registry record.

    unix:/path/to/socket        a Unix socket; the path is absolute
    http://127.0.0.1:9100       loopback only: a token must never cross a network in the clear
    https://node-1.lan:9100     anywhere

IPv6 hosts are written in brackets. Port 0 is for listening only: the kernel chooses.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

ADDRESS_CHARACTERS_MAX = 512
SOCKET_PATH_BYTES_MAX = 107
"""sun_path of unix(7) less its NUL"""
PORT_MAX = 65535

UNIX = "unix"
HTTP = "http"
HTTPS = "https"

_URL = re.compile(r"(https?)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?\Z")


class Address(NamedTuple):
    """scheme is `unix` (then path is set) or `http`/`https` (then host and port are set)."""

    scheme: str
    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """A Unix socket."""
        return self.scheme == UNIX

    @property
    def is_tls(self) -> bool:
        """Needs certificates."""
        return self.scheme == HTTPS

    @property
    def base_url(self) -> str:
        """What HTTP requests start with; over a Unix socket the host is a placeholder."""
        return "http://localhost" if self.is_unix else str(self)

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Text → Address. ValueError, with a sentence for the operator, for anything else than the three forms."""
    if len(text) > ADDRESS_CHARACTERS_MAX:
        raise ValueError(f"an address has at most {ADDRESS_CHARACTERS_MAX} characters")
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    match = _URL.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not unix:/path, http://127.0.0.1:port or https://host:port")
    scheme, host_v6, host_name, port_text = match.groups()
    host = host_v6 or host_name
    port = int(port_text)
    if port > PORT_MAX:
        raise ValueError(f"{text!r}: a port is at most {PORT_MAX}")
    if host_v6 is not None:
        _require_ipv6(host_v6)
    if scheme == HTTP and not is_loopback(host):
        raise ValueError(f"{text!r}: plain http is for loopback only; use https with a certificate")
    return Address(scheme, host=host, port=port)


def is_loopback(host: str) -> bool:
    """`localhost` and the loopback networks (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3); no name is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_unix(path: str) -> Address:
    if not path.startswith("/") or "\x00" in path:
        raise ValueError("a Unix socket's path is absolute")
    if len(path.encode("utf-8", "surrogateescape")) > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"a Unix socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes: {path!r}")
    return Address(UNIX, path=path)


def _require_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise ValueError(f"{host!r} is not an IPv6 address") from error
