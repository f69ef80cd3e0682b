"""The master's config.json, parsed into frozen records. Unknown fields and impossible values are one clear line.

{"listen": "unix:/run/frostbyte/master.sock", "cluster_id": "<32 hex digits>", "internal_key_file": "/…/internal.key",
 "metadata": {"engine": "sqlite", "path": "/…/metadata", "socket": "/…/metadata.sock"}, "redundancy": "replica:2"}

or "metadata": {"engine": "postgresql", "dsn": "postgresql://…"}, which makes the file a secret. With several masters
each has such a file, and all of them the same "masters": ["https://main.lan:9100", "https://second.lan:9100"].
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from cluster.maintenance.lifecycle_rules import CALENDAR_DAY_S
from cluster.maintenance.survey import SurveySettings
from cluster.maintenance.sweep import SweepSettings
from cluster.redundancy import Redundancy, parse_redundancy
from cluster.registry.leadership import LEASE_TTL_S
from cluster.registry.state import Timing
from storage.base.address import Address, parse_address
from storage.base.files import DiskFiles
from storage.base.key_files import read_internal_key
from storage.base.tls_files import TlsFiles
from storage.datanode.config import MASTERS_MAX
from storage.metadata.settings import SQLITE, MetadataSettings, check_metadata_settings

CONFIG_BYTES_MAX = 64 * 1024
PERIOD_S_MAX = 366 * 86_400.0
RATE_BYTES_PER_S_MIN = 4_096
RATE_BYTES_PER_S_MAX = 1 << 40

_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


class ConfigError(ValueError):
    """One line for the operator."""


class TimingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds; see state.Timing."""

    heartbeat_interval_s: float = 1.0
    joining_interval_s: float = 0.05
    suspect_after_s: float = 3.0
    dead_after_s: float = 15.0
    tick_interval_s: float = 0.5
    master_lease_s: float = LEASE_TTL_S
    """how long a master that died stays the active one at most; see leadership"""


class MaintenanceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the background jobs go by: seconds, and bytes a second."""

    lease_ttl_s: float = 30.0
    """a write session that was not renewed for this long is fenced"""
    sweep_interval_s: float = 30.0
    orphan_age_s: float = 3_600.0
    """the youngest age at which a chunk that nothing references is set aside"""
    quarantine_s: float = 86_400.0
    """how long what was set aside is kept"""
    history_s: float = 0.0
    """how long the chunks of what was deleted are kept, for records of an earlier moment; 0: not at all"""
    lifecycle_day_s: float = CALENDAR_DAY_S
    """how long a day of lifecycle rules lasts; shorter ones are for tests"""
    survey_interval_s: float = 600.0
    """between two walks over all records and inventories, when nothing else asks for one"""
    surplus_age_s: float = 300.0
    """how long a piece that no row names must have been seen before it is set aside"""
    repair_bytes_per_s: int = 128 << 20
    """how fast pieces are made anew, over all nodes"""
    rebalance_interval_s: float = 60.0
    """between two looks at whether nodes are filled evenly"""
    rebalance_bytes_per_s: int = 32 << 20
    """how fast pieces move for evenness"""
    rewrite_interval_s: float = 10.0
    """between two looks at the redundancy of buckets"""
    rewrite_bytes_per_s: int = 64 << 20
    """how fast is read what is laid out anew in another redundancy"""


class MasterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module. tls_cert and tls_key: shown to callers over https. tls_ca: trusted when calling datanodes."""

    listen: str
    cluster_id: str
    internal_key_file: str
    metadata: MetadataSettings
    masters: tuple[str, ...] = ()
    """every master of the cluster as others reach it, this one among them; empty: this one alone, where it listens"""
    advertise: str = ""
    """where others reach this one, when that is not where it listens"""
    redundancy: str = "replica:2"
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    timing: TimingSettings = TimingSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()

    @property
    def listen_address(self) -> Address:
        """Port 0 lets the kernel choose."""
        return parse_address(self.listen)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Of every master, this one first."""
        own = parse_address(self.advertise or self.listen)
        return (own, *(address for address in map(parse_address, self.masters) if address != own))

    @property
    def tls(self) -> TlsFiles | None:
        """What the master shows to callers over https."""
        return TlsFiles(self.tls_cert, self.tls_key) if self.tls_cert else None

    @property
    def placed(self) -> Redundancy:
        """How many copies a chunk must have."""
        return parse_redundancy(self.redundancy)


_decode = msgspec.json.Decoder(MasterConfig).decode


def parse_config(text: str | bytes) -> MasterConfig:
    """JSON → config; ConfigError in one line."""
    try:
        config = _decode(text)
        _check(config)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    return config


def load_config(path: Path) -> MasterConfig:
    """Read and parse; ConfigError that names the file."""
    try:
        return parse_config(_read(path, CONFIG_BYTES_MAX))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def load_internal_key(path: Path) -> bytes:
    """32 bytes. ConfigError, which shows nothing of them."""
    try:
        return read_internal_key(DiskFiles(), path)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def make_timing(settings: TimingSettings) -> Timing:
    """For the registry."""
    return Timing(**{name: getattr(settings, name) for name in Timing._fields})


def make_sweep_settings(settings: MaintenanceSettings) -> SweepSettings:
    """For the sweeper. Two passes that see an orphan are at least half an interval apart, so that they are two; a call
    to the metadata takes at most a third of a lease (cluster/session.py), so half of one is margin enough."""
    defaults = SweepSettings()
    orphan_age_ms = round(settings.orphan_age_s * 1000)
    return defaults._replace(
        lease_ttl_ms=round(settings.lease_ttl_s * 1000),
        read_margin_ms=round(settings.lease_ttl_s * 500),
        orphan_age_ms=orphan_age_ms,
        unknown_age_ms=max(defaults.unknown_age_ms, orphan_age_ms),
        passes_apart_ms=min(defaults.passes_apart_ms, round(settings.sweep_interval_s * 500)),
        quarantine_ms=round(settings.quarantine_s * 1000),
        history_ms=round(settings.history_s * 1000),
    )


def make_survey_settings(settings: MaintenanceSettings) -> SurveySettings:
    """For the surveyor."""
    return SurveySettings(
        settings.survey_interval_s,
        settings.surplus_age_s,
        read_margin_s=settings.lease_ttl_s / 2,
        history_s=settings.history_s,
    )


def _check(config: MasterConfig) -> None:
    if not _HEX_ID.match(config.cluster_id):
        raise ConfigError("cluster_id is 32 lower-case hex digits")
    problem = check_metadata_settings(config.metadata)
    if problem:
        raise ConfigError(f"metadata: {problem}")
    if bool(config.tls_cert) != bool(config.tls_key):
        raise ConfigError("tls_cert and tls_key go together")
    if config.listen_address.is_tls and not config.tls_cert:
        raise ConfigError(f"{config.listen} needs tls_cert and tls_key")
    _check_masters(config)
    parse_redundancy(config.redundancy)
    for settings in (config.timing, config.maintenance):
        for name in settings.__struct_fields__:
            _check_quantity(name, getattr(settings, name))
    timing = config.timing
    if not timing.heartbeat_interval_s < timing.suspect_after_s < timing.dead_after_s:
        raise ConfigError("heartbeat_interval_s < suspect_after_s < dead_after_s must hold")


def _check_quantity(name: str, value: float) -> None:
    if name.endswith("_bytes_per_s"):
        if not RATE_BYTES_PER_S_MIN <= value <= RATE_BYTES_PER_S_MAX:
            raise ConfigError(f"{name} is between {RATE_BYTES_PER_S_MIN} and {RATE_BYTES_PER_S_MAX}")
    elif not (0 < value <= PERIOD_S_MAX or (name == "history_s" and value == 0)):
        raise ConfigError(f"{name} is more than 0 and at most a year, in seconds")


def _check_masters(config: MasterConfig) -> None:
    if len(config.masters) > MASTERS_MAX:
        raise ConfigError(f"at most {MASTERS_MAX} masters")
    own, *others = config.addresses
    if config.masters and len(others) == len(config.masters):
        raise ConfigError(f"masters must name this master as well: {own}")
    for address in (*others, *((own,) if config.advertise else ())):
        if not address.is_unix and not address.port:
            raise ConfigError(f"{address} needs a port")
    if others and config.metadata.engine == SQLITE and not all(address.is_unix for address in config.addresses):
        raise ConfigError("masters on several machines need PostgreSQL")


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > bytes_max:
        raise ConfigError(f"{path} has more than {bytes_max} bytes")
    return content
