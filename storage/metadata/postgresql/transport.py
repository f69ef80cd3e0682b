"""PURE. Whether everything that a DSN leads to is reached under protection: over TLS, or without leaving this machine.

Object metadata and inline bodies are sealed or not secret, but whoever can change what the database answers can take
objects away. So a DSN without TLS may name Unix sockets and loopback addresses only, as everywhere else in a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs, unquote, urlsplit

from storage.base.address import is_loopback

PROTECTED_MODES = frozenset({"require", "verify-ca", "verify-full"})


def is_protected(dsn: str, environment: Mapping[str, str]) -> bool:
    """ValueError for a DSN that is no URL."""
    parts = urlsplit(dsn)
    query = parse_qs(parts.query)
    mode = query.get("sslmode", [environment.get("PGSSLMODE", "")])[-1]
    if mode in PROTECTED_MODES:
        return True
    hosts = [*_hosts(parts.netloc.rpartition("@")[2]), *_hosts(query.get("host", [""])[-1])]
    hosts = hosts or list(_hosts(environment.get("PGHOST", "")))
    return all(host.startswith("/") or is_loopback(host) for host in hosts)


def _hosts(text: str) -> Iterator[str]:
    """Of `a:1,[::1]:2,%2Frun`, without the ports; ValueError for a port that is none."""
    for place in filter(None, text.split(",")):
        if place.startswith("["):
            host, _, port = place[1:].partition("]")
            port = port.removeprefix(":")
        else:
            host, _, port = place.partition(":")
        if port and not port.isdecimal():
            raise ValueError("a port is a number")
        if host:
            yield unquote(host)
