"""A gateway's config.json, which all of its workers read.

{"listen": "127.0.0.1:9000", "cluster_id": "<32 hex digits>", "keyring": "/var/lib/frostbyte/keyring",
 "master_key_file": "/var/lib/frostbyte/master.key", "internal_key_file": "/var/lib/frostbyte/internal.key",
 "metadata": {"path": "/var/lib/frostbyte/metadata", "socket": "/run/frostbyte/metadata.sock"},
 "masters": ["unix:/run/frostbyte/master.sock"]}

or "metadata": {"engine": "postgresql", "dsn": "postgresql://…"}, which makes the file a secret.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.redundancy import parse_redundancy
from cluster.survival import SurviveMin, make_survive_min, require_promise
from s3gw.config import BUCKET_DEFAULTS, CONFIG_BYTES_MAX, ConfigError, SurviveMinSettings
from storage.base.files import DiskFiles, fetch_file
from storage.metadata.settings import MetadataSettings, check_metadata_settings

METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""names the directory where the workers of one gateway count together; prometheus_client reads it when imported"""


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A gateway's config.json, which all of its workers read. Sizes are bytes."""

    cluster_id: str
    listen: str = "127.0.0.1:9000"
    """HOST:PORT of the S3 endpoint, bound by who starts the workers"""
    workers: int | None = None
    """as many as there are processors unless said otherwise"""
    keyring: str
    """directory"""
    master_key_file: str
    """read unless FROSTBYTE_MASTER_KEY is set"""
    internal_key_file: str
    metadata: MetadataSettings
    masters: tuple[str, ...]
    datanode_directories: tuple[str, ...] = ()
    """data directories of datanodes on this machine (or volumes shared with them) that reads and large writes go to
    directly; whose they are is asked of each"""
    local_writes: bool = True
    """whether writes do"""
    redundancy: str = "replica:2"
    """of buckets that do not say otherwise"""
    survive_min: SurviveMinSettings | None = None
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    bucket_defaults: str = "acl"
    """what new buckets begin with; see Config"""
    tls_cert: str = ""
    tls_key: str = ""
    internal_ca: str = ""
    chunk_size_bytes: int = 8 << 20
    inline_size_bytes_max: int = 16 << 10
    memory_budget_bytes: int = 64 << 20
    lease_ttl_s: float = 30.0
    drain_timeout_s: float = 20.0
    cipher: str = "aes-256-gcm"

    @property
    def survived(self) -> SurviveMin | None:
        """What every acknowledged write must survive, where the operator says so. ValueError."""
        asked = self.survive_min
        return None if asked is None else make_survive_min(asked.level, asked.losses)


_decode = msgspec.json.Decoder(WorkerConfig).decode


def load_worker_config(path: Path) -> WorkerConfig:
    """ConfigError in one line."""
    try:
        config = _decode(fetch_file(DiskFiles(), path, CONFIG_BYTES_MAX))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: {error}") from None
    except ValueError as error:  # too large; it names the file
        raise ConfigError(str(error)) from None
    if config.bucket_defaults not in BUCKET_DEFAULTS:
        raise ConfigError(f"{path}: bucket_defaults is acl or aws, not {config.bucket_defaults!r}")
    try:
        placed, survived = parse_redundancy(config.redundancy), config.survived
        if survived is not None:
            require_promise(survived, placed)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    problem = check_metadata_settings(config.metadata)
    if problem:
        raise ConfigError(f"{path}: metadata: {problem}")
    return config
