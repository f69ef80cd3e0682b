"""The configuration: what it says, and one clear line for everything else."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.internal_auth import derive_node_key
from storage.base.internal_server import TlsFiles
from storage.datanode.config import ConfigError, choose_reserve_bytes, load_config, load_node_key, parse_config
from storage.datanode.scrubber import ScrubSettings
from tests.storage.datanode.nodes import CLUSTER_ID, NODE_KEY

MINIMAL: dict[str, Any] = {"listen": "unix:/run/n.sock", "cluster_id": CLUSTER_ID, "node_key": NODE_KEY.hex()}


def _parse(**changes: Any) -> Any:
    document = {name: value for name, value in {**MINIMAL, **changes}.items() if value is not None}
    return parse_config(json.dumps(document))


def test_the_defaults() -> None:
    """Durable, with a reserve, alone."""
    config = _parse()
    assert (config.durability, config.reserve_bytes, config.masters, config.zone) == ("fsync", None, (), "default")
    assert config.tls is None
    assert config.scrub == ScrubSettings(16 << 20, 7 * 86400)


@pytest.mark.parametrize(
    ("asked", "capacity_bytes", "reserve_bytes"),
    [
        (None, 20 << 30, 1 << 30),
        (None, 4 << 40, 1 << 30),
        (None, 10 << 30, 512 << 20),
        (None, 1 << 20, 52_428),
        (None, 0, 0),
        (0, 4 << 40, 0),
        (7 << 30, 1 << 30, 7 << 30),
    ],
)
def test_the_reserve_is_a_gibibyte_but_not_more_than_a_twentieth(
    asked: int | None, capacity_bytes: int, reserve_bytes: int
) -> None:
    """A small disk is not full at once; what the operator says is what counts."""
    assert choose_reserve_bytes(_parse(reserve_bytes=asked), capacity_bytes) == reserve_bytes


def test_all_fields() -> None:
    """As an operator writes them."""
    config = _parse(
        listen="https://0.0.0.0:9100",
        advertise="https://node-1:9100",
        masters=["https://m1:1", "unix:/m2"],
        node_id="1" * 32,
        zone="rack-1",
        host="host-1",
        reserve_bytes=5,
        tls_cert="c",
        tls_key="k",
        tls_ca="a",
        durability="none",
        scrub_bytes_per_s=1000,
        scrub_interval_s=3.5,
    )
    assert config.scrub == ScrubSettings(1000, 3.5)
    assert [str(address) for address in config.master_addresses] == ["https://m1:1", "unix:/m2"]
    assert config.tls == TlsFiles("c", "k")
    assert config.listen_address.port == 9100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"listne": "x"}, "unknown field 'listne'"),
        ({"listen": None}, "listen is missing"),
        ({"cluster_id": None}, "cluster_id is missing"),
        ({"cluster_id": "xyz"}, "cluster_id is 32"),
        ({"node_id": "xyz"}, "node_id is 32"),
        ({"listen": 5}, "listen is a text"),
        ({"listen": "http://10.0.0.1:9"}, "loopback only"),
        ({"listen": "https://h:9"}, "needs tls_cert"),
        ({"listen": "https://0.0.0.0:9", "tls_cert": "c", "tls_key": "k"}, "advertise says"),
        ({"tls_cert": "c"}, "go together"),
        ({"advertise": "https://h:0"}, "needs a port"),
        ({"masters": "unix:/m"}, "list of addresses"),
        ({"masters": [5]}, "list of addresses"),
        ({"masters": ["x"]}, "is not unix:"),
        ({"masters": ["unix:/m"] * 10}, "at most 9"),
        ({"zone": "a/b"}, "zone and host"),
        ({"zone": ""}, "zone and host"),
        ({"host": "a b"}, "zone and host"),
        ({"reserve_bytes": "5"}, "whole number"),
        ({"reserve_bytes": True}, "whole number"),
        ({"reserve_bytes": -1}, "not negative"),
        ({"durability": "maybe"}, "durability is"),
        ({"scrub_bytes_per_s": 0}, "at least 1"),
        ({"scrub_bytes_per_s": 1.5}, "whole number"),
        ({"scrub_interval_s": 0.5}, "at least 1"),
        ({"scrub_interval_s": float("nan")}, "at least 1"),
        ({"scrub_interval_s": float("inf")}, "at least 1"),
        ({"scrub_interval_s": True}, "a number"),
        ({"scrub_interval_s": "5"}, "a number"),
        ({"node_key": None}, "exactly one"),
        ({"node_key_file": "f"}, "exactly one"),
        ({"internal_key_file": "f"}, "exactly one"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes: dict[str, Any], message: str) -> None:
    """With the field's name."""
    with pytest.raises(ConfigError, match=message) as caught:
        _parse(**changes)
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=100)
    | st.dictionaries(
        st.sampled_from([*MINIMAL, "masters", "zone"]), st.none() | st.integers() | st.text() | st.lists(st.integers())
    ).map(json.dumps)
)
def test_any_text_is_a_config_or_an_error(text: str) -> None:
    """Never another exception."""
    with pytest.raises(ConfigError):
        parse_config(text)


def test_a_deep_document_is_refused() -> None:
    """JSON has no bound of its own."""
    with pytest.raises(ConfigError, match="not JSON"):
        parse_config("[" * 60_000)


def test_the_key_is_not_shown() -> None:
    """A config may be logged."""
    assert NODE_KEY.hex() not in repr(_parse())


def test_the_key_in_its_three_places(tmp_path: Path) -> None:
    """In hex or base64; an internal key is used to derive the node's."""
    path = tmp_path / "k"
    for text in (NODE_KEY.hex(), base64.b64encode(NODE_KEY).decode(), NODE_KEY.hex().upper() + "\n"):
        assert load_node_key(_parse(node_key=text), "1" * 32) == NODE_KEY
        path.write_text(text)
        assert load_node_key(_parse(node_key=None, node_key_file=str(path)), "1" * 32) == NODE_KEY
        derived = load_node_key(_parse(node_key=None, internal_key_file=str(path)), "1" * 32)
        assert derived == derive_node_key(NODE_KEY, "datanode", "1" * 32)


@pytest.mark.parametrize(
    "text", ["", "00", "zz" * 32, NODE_KEY.hex() + "00", "ü" * 64, base64.b64encode(bytes(31)).decode()]
)
def test_a_key_of_another_size_is_refused(tmp_path: Path, text: str) -> None:
    """And not shown."""
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(ConfigError, match="32 bytes") as caught:
        load_node_key(_parse(node_key=None, node_key_file=str(path)), "1" * 32)
    assert not text or text not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a directory, or far too large."""
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)
    (tmp_path / "large").write_bytes(b" " * 100_000)
    with pytest.raises(ConfigError, match="more than"):
        load_config(tmp_path / "large")
    (tmp_path / "bad").write_text("{}")
    with pytest.raises(ConfigError, match="bad: listen is missing"):
        load_config(tmp_path / "bad")
