"""What a PUT says beside its body, and what it is told."""

from __future__ import annotations

from typing import NamedTuple

from cluster.seal import Seal
from storage.metadata.commands import Conditions, VersionCommitted
from storage.model import Attributes, Checksum


class PutRequest(NamedTuple):
    """The checksum of `attributes` is filled in from the body's digests."""

    owner_id: str
    attributes: Attributes
    """sse: what the client asked for; not empty whenever there is a seal"""
    conditions: Conditions = Conditions()
    seal: Seal | None = None
    """None: under the bucket's own key, like everything"""


class PutResult(NamedTuple):
    """The committed version, what was stored of its checksum, and how many bytes it has."""

    committed: VersionCommitted
    checksum: Checksum | None
    size: int
