"""The master's configuration: what is read, and one line for what is not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.sweep import SweepSettings
from cluster.redundancy import replicated
from cluster.registry.config import (
    ConfigError,
    MaintenanceSettings,
    load_config,
    load_internal_key,
    make_sweep_settings,
    make_timing,
    parse_config,
)
from cluster.registry.state import Timing
from storage.base.internal_server import TlsFiles

DOCUMENT: dict[str, Any] = {
    "listen": "unix:/run/master.sock",
    "cluster_id": "ab" * 16,
    "internal_key_file": "/keys/internal.key",
    "metadata": {"engine": "sqlite", "path": "/data/metadata", "socket": "/run/metadata.sock"},
}


def test_the_defaults_are_the_documented_ones() -> None:
    """A heartbeat a second, suspect after three, dead after fifteen, two replicas."""
    config = parse_config(json.dumps(DOCUMENT))
    assert make_timing(config.timing) == Timing(1.0, 0.05, 3.0, 15.0, 0.5)
    assert config.placed == replicated(2)
    assert config.listen_address.path == "/run/master.sock"
    assert config.tls is None


def test_everything_can_be_said() -> None:
    """TLS, timing, redundancy."""
    more = {
        "listen": "https://10.0.0.1:9443",
        "tls_cert": "/c.pem",
        "tls_key": "/k.pem",
        "redundancy": "replica:3",
        "timing": {"heartbeat_interval_s": 0.1, "suspect_after_s": 0.5, "dead_after_s": 2},
    }
    config = parse_config(json.dumps({**DOCUMENT, **more}))
    assert config.tls == TlsFiles("/c.pem", "/k.pem")
    assert config.placed == replicated(3)
    assert make_timing(config.timing).dead_after_s == 2


def test_the_sweeper_gets_milliseconds() -> None:
    """The defaults of both sides agree, and short times for tests stay in proportion."""
    assert make_sweep_settings(MaintenanceSettings()) == SweepSettings()
    short = make_sweep_settings(MaintenanceSettings(2, 1, 0.5, 3))
    assert (short.lease_ttl_ms, short.orphan_age_ms, short.quarantine_ms, short.passes_apart_ms) == (
        2000,
        500,
        3000,
        500,
    )
    assert make_sweep_settings(MaintenanceSettings(orphan_age_s=1e6)).unknown_age_ms == 1e9


BAD: dict[str, dict[str, Any]] = {
    "unknown field": {"lissten": "x"},
    "cluster_id": {"cluster_id": "AB" * 16},
    "no metadata engine": {"metadata": {"engine": "oracle", "path": "/x", "socket": "/y"}},
    "unknown": {"metadata": {"path": "/x", "socket": "/y", "paht": ""}},
    "go together": {"tls_cert": "/c.pem"},
    "needs tls_cert": {"listen": "https://10.0.0.1:9443"},
    "loopback": {"listen": "http://10.0.0.1:9000"},
    "at most 24 data": {"redundancy": "ec:25+2"},
    "no redundancy": {"redundancy": "two"},
    "more than 0": {"timing": {"tick_interval_s": 0}},
    "at most a year": {"maintenance": {"orphan_age_s": 1e12}},
    "rebalance_bytes_per_s is between 4096": {"maintenance": {"rebalance_bytes_per_s": 0}},
    "rewrite_bytes_per_s is between 4096": {"maintenance": {"rewrite_bytes_per_s": 1}},
    "must hold": {"timing": {"suspect_after_s": 20}},
    "Expected": {"timing": {"suspect_after_s": "3"}},
}


@pytest.mark.parametrize("reason", BAD)
def test_what_is_refused(reason: str) -> None:
    """In one line that says what is wrong."""
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_config(json.dumps({**DOCUMENT, **BAD[reason]}))
    assert "\n" not in str(caught.value)


@given(st.one_of(st.text(max_size=50), st.binary(max_size=50), st.just("[" * 10_000)))
def test_hostile_documents(text: str | bytes) -> None:
    """Whatever it is, it is no configuration and no crash."""
    with pytest.raises(ConfigError):
        parse_config(text)


def test_files_are_named_in_errors(tmp_path: Path) -> None:
    """Missing, broken, too large."""
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match=r"config\.json: cannot read"):
        load_config(path)
    for content in ("{", "x" * 70_000):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"config\.json"):
            load_config(path)
    path.write_text(json.dumps(DOCUMENT))
    assert load_config(path).cluster_id == "ab" * 16


def test_the_internal_key_is_32_bytes_in_base64(tmp_path: Path) -> None:
    """And is never shown."""
    path = tmp_path / "internal.key"
    path.write_bytes(base64.b64encode(bytes(range(32))) + b"\n")
    assert load_internal_key(path) == bytes(range(32))
    for content in (b"", b"!!!", base64.b64encode(b"short secret"), b"A" * 2000):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"internal\.key") as caught:
            load_internal_key(path)
        assert "short secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        load_internal_key(tmp_path / "none")


def test_several_masters_know_each_other() -> None:
    """Every file names all of them; this one comes first, by where others reach it. Alone it needs no list."""
    assert list(map(str, parse_config(json.dumps(DOCUMENT)).addresses)) == ["unix:/run/master.sock"]
    postgresql = {"engine": "postgresql", "dsn": "postgresql://h/d"}
    tls = {"tls_cert": "/c.pem", "tls_key": "/k.pem", "metadata": postgresql}
    masters = ["https://a:9100", "https://b:9100"]
    listening = parse_config(json.dumps({**DOCUMENT, **tls, "listen": masters[1], "masters": masters}))
    assert list(map(str, listening.addresses)) == [masters[1], masters[0]]
    everywhere = {"listen": "https://0.0.0.0:9100", "advertise": masters[0], "masters": masters}
    assert list(map(str, parse_config(json.dumps({**DOCUMENT, **tls, **everywhere})).addresses)) == masters
    for change, reason in (
        ({"listen": "https://c:9100"}, "masters must name this master as well: https://c:9100"),
        ({"masters": [*masters, "https://c:0"]}, "needs a port"),
        ({"masters": ["https://a:9100"] * 10}, "at most 9 masters"),
        ({"masters": [*masters, "http://c:9100"]}, "loopback only"),
        ({"metadata": DOCUMENT["metadata"]}, "masters on several machines need PostgreSQL"),
    ):
        with pytest.raises(ConfigError, match=reason):
            parse_config(json.dumps({**DOCUMENT, **tls, "listen": masters[0], "masters": masters, **change}))
