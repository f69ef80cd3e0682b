"""The settings of a Frostbyte start: config.json, then the environment, then the command line, each over the last.

Secrets are hidden in `repr`. Unknown fields in config.json are refused by name, so that a typing mistake never
passes as a default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from storage.base.errors import FrostbyteError
from storage.crypto.envelope import parse_cipher

DATANODES_MAX = 64
WORKERS_MAX = 64
ENVIRONMENT_PREFIX = "FROSTBYTE_"


class ConfigError(FrostbyteError):
    """A setting that cannot work; the message is one line for a person."""


class MetadataSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which engine keeps the records."""

    engine: str = "sqlite"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that `frostbyte up` can be told. Sizes are bytes, times seconds."""

    data: tuple[str, ...] = ()
    """the first holds keys and metadata; with several, each holds one datanode"""
    listen: str = "127.0.0.1:9000"
    tls_cert: str = ""
    tls_key: str = ""
    datanodes: int | None = None
    replicas: int = 2
    workers: int | None = None
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()
    """host names under which `bucket.DOMAIN` addresses a bucket"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses whose X-Forwarded-Host and X-Forwarded-Proto are believed"""
    zone: str = ""
    chunk_size_bytes: int = 8 << 20
    inline_size_bytes_max: int = 16 << 10
    memory_budget_bytes: int = 64 << 20
    reserve_bytes: int = 1 << 30
    durability: str = "fsync"
    """`fsync`, or `none`: nothing acknowledged survives a power cut then, and status says so"""
    cipher: str = "aes-256-gcm"
    metadata: MetadataSettings = MetadataSettings()
    drain_timeout_s: float = 20.0
    lease_ttl_s: float = 30.0
    """how long a silent worker keeps its write session, and a reader its chunks"""
    sweep_interval_s: float = 30.0
    orphan_age_s: float = 3600.0
    """the youngest age at which a chunk that nothing references is set aside"""
    quarantine_s: float = 86400.0
    """how long what was set aside is kept"""

    @property
    def home(self) -> Path:
        """Where keys, metadata and run files live."""
        return Path(self.data[0])

    @property
    def datanode_directories(self) -> tuple[Path, ...]:
        """One per datanode process."""
        if len(self.data) > 1:
            return tuple(Path(directory) / "datanode" for directory in self.data)
        count = 3 if self.datanodes is None else self.datanodes
        return tuple(self.home / f"datanode-{number}" for number in range(1, count + 1))

    @property
    def worker_count(self) -> int:
        """Gateway processes; one per processor unless said otherwise."""
        return self.workers or os.cpu_count() or 1

    @property
    def endpoint(self) -> str:
        """The URL that clients are told."""
        host, port = parse_listen(self.listen)
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{'https' if self.tls_cert else 'http'}://{shown}:{port}"


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT` (an IPv6 host in brackets) → (host, port); ConfigError otherwise."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen wants HOST:PORT, not {text!r}")
    return host, int(port)


def load_config(file: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    """Merge the three sources and check the outcome. Flags that are None or empty were not given."""
    settings: dict[str, Any] = _read_file(file) if file else {}
    for name, raw in environment.items():
        field = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and field in _ENVIRONMENT_FIELDS:
            settings[field] = raw.split(os.pathsep) if field == "data" else raw
    settings.update({name: value for name, value in flags.items() if value not in (None, [], ())})
    try:
        config = msgspec.convert(settings, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from None
    _check(config, environment)
    return config


_ENVIRONMENT_FIELDS = frozenset({"data", "listen", "region", "replicas", "datanodes", "workers", "zone"})


def _read_file(file: Path) -> dict[str, Any]:
    try:
        loaded = msgspec.json.decode(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file}: a JSON object is expected")
    return loaded


def _check(config: Config, environment: Mapping[str, str]) -> None:
    if not config.data:
        raise ConfigError("no data directory: give --data DIR")
    if len({Path(directory).resolve() for directory in config.data}) != len(config.data):
        raise ConfigError("the same --data directory is given twice")
    if len(config.data) > 1 and config.datanodes is not None:
        raise ConfigError("--datanodes goes with a single --data; with several there is one datanode each")
    count = len(config.datanode_directories)
    if not 1 <= count <= DATANODES_MAX:
        raise ConfigError(f"between 1 and {DATANODES_MAX} datanodes, not {count}")
    if not 1 <= config.replicas <= count:
        raise ConfigError(f"--replicas {config.replicas} needs as many datanodes; there are {count}")
    if not 1 <= config.worker_count <= WORKERS_MAX:
        raise ConfigError(f"between 1 and {WORKERS_MAX} workers, not {config.worker_count}")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError("--tls-cert and --tls-key go together")
    if config.metadata.engine != "sqlite":
        raise ConfigError(f"metadata engine {config.metadata.engine!r} is not available; use sqlite")
    if config.durability not in ("fsync", "none"):
        raise ConfigError(f"durability is fsync or none, not {config.durability!r}")
    if not 64 << 10 <= config.chunk_size_bytes <= 64 << 20:
        raise ConfigError("chunk_size_bytes is between 64 KiB and 64 MiB")
    if not 0 <= config.inline_size_bytes_max <= 64 << 10:
        raise ConfigError("inline_size_bytes_max is at most 64 KiB")
    parse_listen(config.listen)
    try:
        parse_cipher(config.cipher, environment)
    except ValueError as error:
        raise ConfigError(str(error)) from None
