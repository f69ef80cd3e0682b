"""PURE. Which certificate a server shows."""

from __future__ import annotations

from typing import NamedTuple


class TlsFiles(NamedTuple):
    """Paths of PEM files: the certificate chain that is shown, and its private key."""

    cert: str
    key: str
