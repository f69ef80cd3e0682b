"""PURE. Who may call whom inside the cluster.

    internal key     32 random bytes of the whole cluster; gateways and the master hold it
    node key         32 bytes, HKDF-SHA256 of the internal key for one role and node; a datanode holds only its own
    access token     what callers of that node present:        Authorization: Bearer <64 hex digits>
    report token     what the node itself presents to masters: the same header, beside x-frostbyte-node
    pull ticket      lets another datanode read one chunk until a moment:  Authorization: Ticket <expires_ms>.<64 hex>

Each token is an HMAC of the node key under a label of its own, so that seeing one gives away none of the others. A
stolen datanode can therefore impersonate itself only. Every comparison takes the same time whatever differs.
"""

from __future__ import annotations

import hmac
import re

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from storage.base.ids import ChunkId

INTERNAL_KEY_BYTES = 32
NODE_KEY_BYTES = 32
TICKET_CHARACTERS_MAX = 96

NODE_HEADER = "x-frostbyte-node"
"""names the node that presents a report token"""

ROLE_DATANODE = "datanode"
ROLE_MASTER = "master"
MASTER_NODE_ID = "master"
"""every master answers to one name: derive_node_key(internal_key, ROLE_MASTER, MASTER_NODE_ID)"""

_NAME = re.compile(r"[a-z0-9._-]{1,64}\Z")
_TICKET = re.compile(r"([0-9]{1,16})\.([0-9a-f]{64})\Z")


def derive_node_key(internal_key: bytes, role: str, node_id: str) -> bytes:
    """32 bytes for one node in one role (HKDF, RFC 5869). ValueError for a key of the wrong size or a strange name."""
    if len(internal_key) != INTERNAL_KEY_BYTES:
        raise ValueError(f"an internal key has {INTERNAL_KEY_BYTES} bytes, not {len(internal_key)}")
    if not _NAME.match(role) or not _NAME.match(node_id):
        raise ValueError("a role and a node id have 1 to 64 of a-z 0-9 . _ -")
    # NUL cannot be in either name, so that no two pairs give one info.
    info = b"\0".join((b"frostbyte node 1", role.encode(), node_id.encode()))
    return HKDF(algorithm=SHA256(), length=NODE_KEY_BYTES, salt=None, info=info).derive(internal_key)


def access_token(node_key: bytes) -> str:
    """What callers of the node present; 64 hex digits."""
    return _label(node_key, b"frostbyte access 1")


def report_token(node_key: bytes) -> str:
    """What the node presents to the master; 64 hex digits."""
    return _label(node_key, b"frostbyte report 1")


def bearer(token: str) -> str:
    """The value of the Authorization header (RFC 6750 §2.1)."""
    return f"Bearer {token}"


def is_bearer(header: str | bytes, token: str) -> bool:
    """Whether an Authorization header presents this token. Constant time."""
    presented = header if isinstance(header, bytes) else header.encode("utf-8", "surrogateescape")
    return hmac.compare_digest(presented, bearer(token).encode())


def make_pull_ticket(node_key: bytes, chunk_id: ChunkId, expires_ms: int) -> str:
    """Lets its holder read this chunk from the node of this key before expires_ms (since the epoch)."""
    return f"{expires_ms}.{_ticket_mac(node_key, chunk_id, expires_ms)}"


def verify_pull_ticket(node_key: bytes, chunk_id: ChunkId, ticket: str, now_ms: int) -> bool:
    """Made with this key, for this chunk, and not expired. Never raises."""
    match = _TICKET.match(ticket)
    if match is None:
        return False
    expires_ms = int(match[1])
    genuine = hmac.compare_digest(match[2], _ticket_mac(node_key, chunk_id, expires_ms))
    return genuine and now_ms < expires_ms


def _ticket_mac(node_key: bytes, chunk_id: ChunkId, expires_ms: int) -> str:
    return _label(node_key, b"frostbyte pull 1\0" + chunk_id.to_bytes() + expires_ms.to_bytes(8, "big"))


def _label(node_key: bytes, message: bytes) -> str:
    return hmac.new(node_key, message, "sha256").hexdigest()
