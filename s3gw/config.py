"""The settings of a Frostbyte start: config.json, then the environment, then the command line, each over the last.

Secrets are hidden in `repr`. Unknown fields in config.json are refused by name, so that a typing mistake never
passes as a default. Paths are relative to the working directory, and absolute from here on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import msgspec

from cluster.maintenance.lifecycle_rules import CALENDAR_DAY_S
from cluster.redundancy import Redundancy, parse_redundancy, replicated
from cluster.survival import make_survive_min, require_promise
from storage.base.address import Address, parse_address
from storage.base.errors import FrostbyteError
from storage.base.files import DiskFiles, fetch_file
from storage.crypto.envelope import parse_cipher
from storage.datanode.scrubber import INTERVAL_DEFAULT_S, PACE_DEFAULT
from storage.metadata.settings import SQLITE, MetadataSettings, check_metadata_settings

DATANODES_MAX = 64
WORKERS_MAX = 64
PORT_MAX = 65535
REPLICAS = 2
BUCKET_DEFAULTS = ("acl", "aws")
CONFIG_BYTES_MAX = 64 * 1024
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound
ENVIRONMENT_PREFIX = "FROSTBYTE_"


class ConfigError(FrostbyteError):
    """A setting that cannot work; the message is one line for a person."""


class InternalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the processes of the cluster reach each other. Without `listen`: by Unix sockets, on this machine only.

    With it, datanodes on other machines can join: the master listens there, and datanode N of this machine at the same
    host on the port above by N. Files are PEM.
    """

    listen: str = ""
    """`https://HOST:PORT`; HOST is the name or address that the other machines use"""
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    """what is trusted when calling another process; empty: what the system trusts"""
    masters: tuple[str, ...] = ()
    """further masters, on other machines: everybody is told of them beside the one that listens here"""


class SurviveMinSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an acknowledged write must survive, whatever its redundancy: {"level": "host", "losses": 1}."""

    level: str
    """`node`, `disk`, `host` or `zone`"""
    losses: int


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that `frostbyte up` can be told. Sizes are bytes, times seconds."""

    data: tuple[str, ...] = ()
    """the first holds keys and metadata; with several, each holds one datanode"""
    listen: str = "127.0.0.1:9000"
    tls_cert: str = ""
    tls_key: str = ""
    datanodes: int | None = None
    """3 unless said otherwise; 0 where all datanodes run alone, here or on other machines"""
    replicas: int | None = None
    """2 unless said otherwise, here or by `redundancy`"""
    redundancy: str = ""
    """`replica:R` or `ec:k+m`: what buckets get that do not say otherwise"""
    survive_min: SurviveMinSettings | None = None
    """a write that would promise less is refused; as much as the redundancy promises of nodes unless said otherwise"""
    workers: int | None = None
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()
    """host names under which `bucket.DOMAIN` addresses a bucket"""
    trusted_proxies: tuple[str, ...] = ()
    """addresses whose X-Forwarded-Host, -Proto and -For are believed"""
    bucket_defaults: str = "acl"
    """what a new bucket begins with. `acl`: ACLs count in it, and nobody is granted anything. `aws`: as on AWS since
    2023, BucketOwnerEnforced and all public access blocked"""
    zone: str = ""
    chunk_size_bytes: int = 8 << 20
    inline_size_bytes_max: int = 16 << 10
    memory_budget_bytes: int = 64 << 20
    reserve_bytes: int | None = None
    """free space that a datanode leaves alone; 1 GiB or 5 % of its disk, whichever is less, unless said otherwise"""
    scrub_bytes_per_s: int = PACE_DEFAULT
    """how fast each datanode reads its chunks again to verify them"""
    scrub_interval_s: float = INTERVAL_DEFAULT_S
    """between the begins of two such passes"""
    local_reads: bool = True
    """whether gateways read chunks straight from the directories of this machine's datanodes"""
    local_writes: bool = True
    """whether they write large ones straight into them; not without local_reads"""
    durability: str = "fsync"
    """`fsync`, or `none`: nothing acknowledged survives a power cut then, and status says so"""
    cipher: str = "aes-256-gcm"
    metadata: MetadataSettings = MetadataSettings()
    """which engine keeps the records; where SQLite's are follows from `data`"""
    internal: InternalSettings = InternalSettings()
    drain_timeout_s: float = 20.0
    lease_ttl_s: float = 30.0
    """how long a silent worker keeps its write session, and a reader its chunks"""
    sweep_interval_s: float = 30.0
    orphan_age_s: float = 3600.0
    """the youngest age at which a chunk that nothing references is set aside"""
    quarantine_s: float = 86400.0
    """how long what was set aside is kept"""
    history_s: float = 0.0
    """how long the chunks of deleted objects are kept so that `frostbyte recover --at` finds them; they take room"""
    survey_interval_s: float = 600.0
    """between two comparisons of all records with what the datanodes hold"""
    surplus_age_s: float = 300.0
    """how long a piece that no record names must have been seen before it is set aside"""
    repair_bytes_per_s: int = 128 << 20
    """how fast lost pieces are made anew, over all datanodes"""
    rewrite_interval_s: float = 10.0
    """between two looks at the redundancy of buckets"""
    rewrite_bytes_per_s: int = 64 << 20
    """how fast is read what is laid out anew in another redundancy"""
    rebalance_interval_s: float = 60.0
    """between two looks at whether the datanodes are filled evenly"""
    rebalance_bytes_per_s: int = 32 << 20
    """how fast pieces move for evenness, over all datanodes"""
    lifecycle_day_s: float = CALENDAR_DAY_S
    """how long a day of lifecycle rules lasts; shorter ones are for tests"""

    @property
    def home(self) -> Path:
        """Where keys, metadata and run files live."""
        return Path(self.data[0])

    @property
    def placed(self) -> Redundancy:
        """How chunks are kept by default. ValueError."""
        if self.redundancy:
            return parse_redundancy(self.redundancy)
        return replicated(REPLICAS if self.replicas is None else self.replicas)

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
        return format_endpoint(self.listen, is_tls=bool(self.tls_cert))


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT` (an IPv6 host in brackets) → (host, port); ConfigError otherwise."""
    match = _LISTEN.match(text)
    if match is None or int(match["port"]) > PORT_MAX:
        raise ConfigError(f"--listen wants HOST:PORT, not {text!r}")
    return match["bracketed"] or match["host"], int(match["port"])


def format_endpoint(listen: str, *, is_tls: bool) -> str:
    """The URL of a listening address, as clients on this machine are told it. ConfigError."""
    host, port = parse_listen(listen)
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - recognised, not bound
    return f"{'https' if is_tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}"


def load_config(file: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    """Merge the three sources and check the outcome. Flags that are None or empty were not given."""
    settings: dict[str, Any] = _read_file(file) if file else {}
    over: dict[str, Any] = {}
    for name, raw in environment.items():
        field = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name.startswith(ENVIRONMENT_PREFIX) and field in _ENVIRONMENT_FIELDS:
            over[field] = raw.split(os.pathsep) if field == "data" else raw
    over.update({name: value for name, value in flags.items() if value not in (None, [], ())})
    if "replicas" in over:
        settings.pop("redundancy", None)  # the file's other way to say the same
    settings.update(over)
    try:
        config = msgspec.convert(settings, Config, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"configuration: {error}") from None
    _check(config, environment)
    return _with_absolute_paths(config)


_LISTEN = re.compile(r"(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s\[\]:]+)):(?P<port>[0-9]{1,5})\Z")
_ENVIRONMENT_FIELDS = frozenset(
    {"data", "listen", "region", "replicas", "datanodes", "workers", "zone", "lifecycle_day_s"}
)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        loaded = msgspec.json.decode(fetch_file(DiskFiles(), file, CONFIG_BYTES_MAX))
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    except ValueError as error:  # too large; it names the file
        raise ConfigError(str(error)) from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{file}: a JSON object is expected")
    return loaded


def _with_absolute_paths(config: Config) -> Config:
    """So that every process can be given them, and commands find them again from another directory."""
    internal = config.internal
    return msgspec.structs.replace(
        config,
        data=tuple(map(_absolute, config.data)),
        tls_cert=_absolute(config.tls_cert),
        tls_key=_absolute(config.tls_key),
        internal=InternalSettings(
            internal.listen,
            _absolute(internal.tls_cert),
            _absolute(internal.tls_key),
            _absolute(internal.tls_ca),
            internal.masters,
        ),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _check(config: Config, environment: Mapping[str, str]) -> None:
    _check_data(config)
    _check_internal(config.internal)
    if not 1 <= config.worker_count <= WORKERS_MAX:
        raise ConfigError(f"between 1 and {WORKERS_MAX} workers, not {config.worker_count}")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError("--tls-cert and --tls-key go together")
    _check_metadata(config.metadata)
    if config.durability not in ("fsync", "none"):
        raise ConfigError(f"durability is fsync or none, not {config.durability!r}")
    if not 64 << 10 <= config.chunk_size_bytes <= 64 << 20:
        raise ConfigError("chunk_size_bytes is between 64 KiB and 64 MiB")
    if not 0 <= config.inline_size_bytes_max <= 64 << 10:
        raise ConfigError("inline_size_bytes_max is at most 64 KiB")
    if config.reserve_bytes is not None and config.reserve_bytes < 0:
        raise ConfigError("reserve_bytes is not negative")
    if config.scrub_bytes_per_s < 1 or not 1 <= config.scrub_interval_s < inf:
        raise ConfigError("scrub_bytes_per_s and scrub_interval_s are at least 1")
    if config.bucket_defaults not in BUCKET_DEFAULTS:
        raise ConfigError(f"bucket_defaults is acl or aws, not {config.bucket_defaults!r}")
    parse_listen(config.listen)
    try:
        parse_cipher(config.cipher, environment)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_data(config: Config) -> None:
    if not all(config.data) or not config.data:
        raise ConfigError("no data directory: give --data DIR")
    if len({Path(directory).resolve() for directory in config.data}) != len(config.data):
        raise ConfigError("the same --data directory is given twice")
    if len(config.data) > 1 and config.datanodes is not None:
        raise ConfigError("--datanodes goes with a single --data; with several there is one datanode each")
    count = len(config.datanode_directories)
    if not 0 <= (config.datanodes or 0) <= DATANODES_MAX or count > DATANODES_MAX:
        raise ConfigError(f"between 0 and {DATANODES_MAX} datanodes, not {config.datanodes or count}")
    _check_redundancy(config, count)


def _check_redundancy(config: Config, datanodes: int) -> None:
    if config.redundancy and config.replicas is not None:
        raise ConfigError("replicas and redundancy are two ways to say one thing: give one of them")
    try:
        placed = config.placed
        if (asked := config.survive_min) is not None:
            require_promise(make_survive_min(asked.level, asked.losses), placed)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if 0 < datanodes < placed.width and not config.internal.listen:
        if config.redundancy:
            raise ConfigError(f"redundancy {placed} needs {placed.width} datanodes; there are {datanodes}")
        raise ConfigError(f"--replicas {placed.width} needs as many datanodes; there are {datanodes}")


def _check_metadata(settings: MetadataSettings) -> None:
    if settings.path or settings.socket:
        raise ConfigError("metadata.path and metadata.socket follow from the data directory")
    told = settings
    if settings.engine == SQLITE:
        told = msgspec.structs.replace(settings, path="in the data directory", socket="in the data directory")
    problem = check_metadata_settings(told)
    if problem:
        raise ConfigError(f"metadata: {problem}")


def _check_internal(internal: InternalSettings) -> None:
    if not internal.listen:
        if internal.tls_cert or internal.tls_key or internal.tls_ca or internal.masters:
            raise ConfigError("internal.tls_cert, tls_key, tls_ca and masters go with internal.listen")
        return
    address = parse_internal_listen(internal)
    if not internal.tls_cert or not internal.tls_key:
        raise ConfigError("internal.listen needs internal.tls_cert and internal.tls_key")
    if address.host in _WILDCARDS:
        raise ConfigError("internal.listen names the address that other machines use, not every address of this one")
    if not 1 <= address.port <= PORT_MAX - DATANODES_MAX:
        raise ConfigError(f"the port of internal.listen is between 1 and {PORT_MAX - DATANODES_MAX}")
    for text in internal.masters:
        try:
            other = parse_address(text)
        except ValueError as error:
            raise ConfigError(f"internal.masters: {error}") from None
        if not other.is_tls or not other.port:
            raise ConfigError("internal.masters are https://HOST:PORT")


def parse_internal_listen(internal: InternalSettings) -> Address:
    """Where the master listens for other machines. ConfigError unless it is https://HOST:PORT."""
    try:
        address = parse_address(internal.listen)
    except ValueError as error:
        raise ConfigError(f"internal.listen: {error}") from None
    if not address.is_tls:
        raise ConfigError("internal.listen is https://HOST:PORT")
    return address
