"""A datanode's config.json as a frozen dataclass. Unknown fields and impossible values are refused in one clear line.

    {"listen": "unix:/run/frostbyte/datanode-1.sock", "cluster_id": "<32 hex digits>", "masters": ["unix:/run/…"],
     "internal_key_file": "/var/lib/frostbyte/internal.key", "zone": "rack-1", "reserve_bytes": 1073741824}

Exactly one of node_key, node_key_file and internal_key_file says how the node's key is known. A node that runs on a
machine of its own is given its own key and id; the internal key opens every node and belongs on gateways and masters.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from storage.base.address import Address, parse_address
from storage.base.ids import CLUSTER_ID_BYTES
from storage.base.internal_auth import INTERNAL_KEY_BYTES, NODE_KEY_BYTES, ROLE_DATANODE, derive_node_key
from storage.base.tls_files import TlsFiles
from storage.datanode.scrubber import INTERVAL_DEFAULT_S, PACE_DEFAULT, ScrubSettings

CONFIG_BYTES_MAX = 64 * 1024
KEY_FILE_BYTES_MAX = 1024
MASTERS_MAX = 9
RESERVE_BYTES_DEFAULT_MAX = 1 << 30
RESERVE_SHARE_DEFAULT = 0.05
"""of the disk: on a small one a whole GiB would leave no room at all"""

DURABILITY_FSYNC = "fsync"
DURABILITY_NONE = "none"
"""no sync at all: for benchmarks, and said in the log and in the node's report"""

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound
_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


class ConfigError(ValueError):
    """One line for the operator."""


@dataclass(frozen=True)
class DatanodeConfig:
    """See the module. advertise: where others reach this node, when that is not where it listens. Sizes are bytes."""

    listen: str
    cluster_id: str
    masters: tuple[str, ...] = ()
    advertise: str = ""
    node_id: str = ""
    """only for a directory that has none yet; empty: made at the first start"""
    node_key: str = field(default="", repr=False)
    """hex or base64"""
    node_key_file: str = ""
    internal_key_file: str = ""
    zone: str = "default"
    host: str = ""
    """in the failure domain; empty: the machine's name"""
    reserve_bytes: int | None = None
    """free space that no chunk may take; None: see choose_reserve_bytes"""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    durability: str = DURABILITY_FSYNC
    scrub_bytes_per_s: int = PACE_DEFAULT
    scrub_interval_s: float = INTERVAL_DEFAULT_S
    """between the begins of two passes"""

    def __post_init__(self) -> None:
        _check_types(self)
        if not _HEX_ID.match(self.cluster_id):
            raise ConfigError(f"cluster_id is {CLUSTER_ID_BYTES * 2} lower-case hex digits")
        if self.node_id and not _HEX_ID.match(self.node_id):
            raise ConfigError("node_id is 32 lower-case hex digits")
        if not _ZONE.match(self.zone) or (self.host and not _ZONE.match(self.host)):
            raise ConfigError("zone and host have 1 to 64 letters, digits, dots, dashes and underscores")
        if self.reserve_bytes is not None and self.reserve_bytes < 0:
            raise ConfigError("reserve_bytes is not negative")
        if self.durability not in (DURABILITY_FSYNC, DURABILITY_NONE):
            raise ConfigError(f"durability is {DURABILITY_FSYNC!r} or {DURABILITY_NONE!r}, not {self.durability!r}")
        if sum(map(bool, (self.node_key, self.node_key_file, self.internal_key_file))) != 1:
            raise ConfigError("exactly one of node_key, node_key_file and internal_key_file is needed")
        if len(self.masters) > MASTERS_MAX:
            raise ConfigError(f"at most {MASTERS_MAX} masters")
        if self.scrub_bytes_per_s < 1 or not 1 <= self.scrub_interval_s < inf:
            raise ConfigError("scrub_bytes_per_s and scrub_interval_s are at least 1")
        self._check_addresses()

    @property
    def scrub(self) -> ScrubSettings:
        """How the node scrubs."""
        return ScrubSettings(self.scrub_bytes_per_s, self.scrub_interval_s)

    def _check_addresses(self) -> None:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("tls_cert and tls_key go together")
        if self.listen_address.is_tls and not self.tls_cert:
            raise ConfigError(f"{self.listen} needs tls_cert and tls_key")
        if self.listen_address.host in _WILDCARDS and not self.advertise:
            raise ConfigError(f"{self.listen} is every address of the machine: advertise says which one others use")
        for text in (*self.masters, *filter(None, (self.advertise,))):
            if not (address := _parse_address(text)).is_unix and not address.port:
                raise ConfigError(f"{text!r} needs a port")

    @property
    def listen_address(self) -> Address:
        """Port 0 lets the kernel choose."""
        return _parse_address(self.listen)

    @property
    def master_addresses(self) -> tuple[Address, ...]:
        """Each gets every heartbeat."""
        return tuple(map(_parse_address, self.masters))

    @property
    def tls(self) -> TlsFiles | None:
        """What the node shows to callers over https."""
        return TlsFiles(self.tls_cert, self.tls_key) if self.tls_cert else None


def parse_config(text: str | bytes) -> DatanodeConfig:
    """JSON → config; ConfigError in one line."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError("not a JSON object")
    known = {item.name for item in fields(DatanodeConfig)}
    unknown = sorted(set(document) - known)
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r}")
    missing = [name for name in ("listen", "cluster_id") if name not in document]
    if missing:
        raise ConfigError(f"{missing[0]} is missing")
    if isinstance(document.get("masters"), list):
        document["masters"] = tuple(document["masters"])
    return DatanodeConfig(**document)


def load_config(path: Path) -> DatanodeConfig:
    """Read and parse; ConfigError that names the file."""
    try:
        return parse_config(_read(path, CONFIG_BYTES_MAX))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def choose_reserve_bytes(config: DatanodeConfig, capacity_bytes: int) -> int:
    """What the configuration says, else 1 GiB or 5 % of the disk, whichever is less."""
    if config.reserve_bytes is not None:
        return config.reserve_bytes
    return min(RESERVE_BYTES_DEFAULT_MAX, int(capacity_bytes * RESERVE_SHARE_DEFAULT))


def load_node_key(config: DatanodeConfig, node_id: str) -> bytes:
    """The 32 bytes of this node's key. An internal key is used to derive it and forgotten. ConfigError."""
    if config.internal_key_file:
        path = Path(config.internal_key_file)
        internal_key = _parse_secret(_read(path, KEY_FILE_BYTES_MAX), INTERNAL_KEY_BYTES, str(path))
        return derive_node_key(internal_key, ROLE_DATANODE, node_id)
    if config.node_key_file:
        path = Path(config.node_key_file)
        return _parse_secret(_read(path, KEY_FILE_BYTES_MAX), NODE_KEY_BYTES, str(path))
    return _parse_secret(config.node_key.encode(), NODE_KEY_BYTES, "node_key")


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > bytes_max:
        raise ConfigError(f"{path} has more than {bytes_max} bytes")
    return content


def _parse_secret(text: bytes, size: int, origin: str) -> bytes:
    stripped = text.strip()
    for decode in (bytes.fromhex, lambda digits: base64.b64decode(digits, validate=True)):
        try:
            secret = decode(stripped.decode("ascii"))
        except (ValueError, binascii.Error):
            continue
        if len(secret) == size:
            return secret
    raise ConfigError(f"{origin} does not hold {size} bytes in hex or base64")


def _parse_address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_types(config: DatanodeConfig) -> None:
    """JSON gives any type; the annotations are strings here, so the defaults of this small class say what is meant."""
    for item in fields(config):
        value: Any = getattr(config, item.name)
        if item.name == "masters":
            if not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
                raise ConfigError("masters is a list of addresses")
        elif item.name == "scrub_bytes_per_s":
            if type(value) is not int:
                raise ConfigError("scrub_bytes_per_s is a whole number")
        elif item.name == "scrub_interval_s":
            if type(value) not in (int, float):
                raise ConfigError("scrub_interval_s is a number")
        elif item.name == "reserve_bytes":
            if value is not None and type(value) is not int:
                raise ConfigError("reserve_bytes is a whole number")
        elif not isinstance(value, str):
            raise ConfigError(f"{item.name} is a text")
