"""Certificates for tests of internal TLS: a CA made on the spot and what a node of it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from storage.base.internal_server import TlsFiles
from tests.clients.certificates import make_certificates


class InternalTls(NamedTuple):
    """ca: what clients are given as tls_ca. files: what servers are given. Valid for 127.0.0.1, ::1 and localhost."""

    ca: str
    files: TlsFiles


def make_internal_tls(directory: Path, addresses: Sequence[str] = ()) -> InternalTls:
    """A fresh CA and one server certificate of it, as PEM files in `directory`, valid for more addresses if given."""
    made = make_certificates(directory, addresses=addresses)
    return InternalTls(str(made.ca), TlsFiles(str(made.certificate), str(made.private_key)))
