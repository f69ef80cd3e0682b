"""What the owner of the records is told of the journal: its config.json, beside --data and --socket.

{"cluster_id": "<32 hex digits>", "keyring": "/…/keyring", "master_key_file": "/…/master.key",
 "internal_key_file": "/…/internal.key", "metadata": {"journal": "auto", …}}
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from storage.base.files import DiskFiles, fetch_file
from storage.base.ids import CLUSTER_ID_BYTES
from storage.metadata.settings import MetadataSettings, check_metadata_settings

CONFIG_BYTES_MAX = 64 * 1024
_HEX_ID = re.compile(r"[0-9a-f]{32}\Z")


class ConfigError(ValueError):
    """One line for the operator."""


class OwnerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See the module. tls_ca: trusted when calling datanodes."""

    cluster_id: str
    keyring: str
    master_key_file: str
    internal_key_file: str
    metadata: MetadataSettings
    tls_ca: str = ""


_decode = msgspec.json.Decoder(OwnerConfig).decode


def load_config(path: Path) -> OwnerConfig:
    """ConfigError that names the file."""
    try:
        config = _decode(fetch_file(DiskFiles(), path, CONFIG_BYTES_MAX))
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ConfigError(f"{path}: {error}") from None
    if not _HEX_ID.match(config.cluster_id):
        raise ConfigError(f"{path}: cluster_id is {CLUSTER_ID_BYTES * 2} lower-case hex digits")
    problem = check_metadata_settings(config.metadata)
    if problem:
        raise ConfigError(f"{path}: metadata: {problem}")
    return config
