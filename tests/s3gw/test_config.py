"""The settings of a start: three sources, one outcome, and every impossible value is one line."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.config import CONFIG_BYTES_MAX, Config, ConfigError, format_endpoint, load_config, parse_listen
from s3gw.worker_config import load_worker_config

TLS = {"tls_cert": "c.pem", "tls_key": "k.pem"}

hosts = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,60}[A-Za-z0-9])?", fullmatch=True) | st.ip_addresses(v=4).map(str)
ports = st.integers(0, 65535)


def load(tmp_path: Path, **fields: Any) -> Config:
    """From a file with these fields, over a data directory."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": [str(tmp_path / "data")], **fields}))
    return load_config(file, {}, {})


@given(hosts, ports)
def test_a_name_or_an_ipv4_address_and_a_port(host: str, port: int) -> None:
    """As they were written."""
    assert parse_listen(f"{host}:{port}") == (host, port)


@given(st.ip_addresses(v=6), ports)
def test_an_ipv6_address_stands_in_brackets(address: ipaddress.IPv6Address, port: int) -> None:
    """Without them it could not be told where the port begins."""
    assert parse_listen(f"[{address}]:{port}") == (str(address), port)
    if ":" in str(address):
        with pytest.raises(ConfigError):
            parse_listen(f"{address}:{port}")


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_one_line(text: str) -> None:
    """Never another exception, and what is accepted can be written back."""
    try:
        host, port = parse_listen(text)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert 0 <= port <= 65535
    assert host
    written = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    assert parse_listen(written) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", ":", ":9000", "9000", "host:", "host:65536", "host:-1", "host:9 ", "h ost:9", "[::1:9", "::1]:9", "h:٣"],
)
def test_addresses_that_are_none(text: str) -> None:
    """The text is shown, quoted."""
    with pytest.raises(ConfigError, match="wants HOST:PORT"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("listen", "is_tls", "endpoint"),
    [
        ("127.0.0.1:9000", False, "http://127.0.0.1:9000"),
        ("0.0.0.0:9000", True, "https://127.0.0.1:9000"),
        ("[::]:80", False, "http://[::1]:80"),
        ("[2001:db8::1]:443", True, "https://[2001:db8::1]:443"),
        ("s3.example:443", True, "https://s3.example:443"),
    ],
)
def test_the_endpoint_can_be_pasted(listen: str, is_tls: bool, endpoint: str) -> None:
    """An address that means all of them is no address to connect to."""
    assert format_endpoint(listen, is_tls=is_tls) == endpoint


def test_flags_go_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """A flag that was not given hides nothing."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": ["from-file"], "replicas": 1, "region": "file", "listen": "file:1"}))
    environment = {"FROSTBYTE_REGION": "environment", "FROSTBYTE_LISTEN": "environment:2", "FROSTBYTE_REPLICAS": "3"}
    flags = {"listen": "flag:3", "data": [], "workers": None, "replicas": None}
    config = load_config(file, flags, environment)
    assert (config.listen, config.region, config.replicas) == ("flag:3", "environment", 3)
    assert config.data == (str(Path("from-file").absolute()),)


def test_copies_asked_for_later_go_over_a_redundancy_in_the_file(tmp_path: Path) -> None:
    """Both say the same thing; what neither says is two copies."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"data": ["data"], "redundancy": "ec:2+1"}))
    assert str(load_config(file, {}, {}).placed) == "ec:2+1"
    assert str(load_config(file, {"replicas": 3}, {}).placed) == "replica:3"
    assert str(load_config(file, {}, {"FROSTBYTE_REPLICAS": "1"}).placed) == "replica:1"
    assert str(load(tmp_path).placed) == "replica:2"


def test_directories_from_the_environment() -> None:
    """Separated as the system separates paths; other variables of ours are no settings."""
    environment = {"FROSTBYTE_DATA": "/one:/two", "FROSTBYTE_ROOT_ACCESS_KEY_ID": "A", "FROSTBYTE_CIPHER": "none"}
    config = load_config(None, {}, environment)
    assert config.data == ("/one", "/two")
    assert config.cipher == "aes-256-gcm"
    assert config.datanode_directories == (Path("/one/datanode"), Path("/two/datanode"))


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the working directory of who reads them later."""
    monkeypatch.chdir(tmp_path)
    internal = {"listen": "https://node:9100", "tls_cert": "i.pem", "tls_key": "i.key", "tls_ca": "ca.pem"}
    config = load_config(None, {"data": ["data"], **TLS, "internal": internal}, {})
    root = str(tmp_path)
    assert config.home == tmp_path / "data"
    assert [config.tls_cert, config.tls_key] == [f"{root}/c.pem", f"{root}/k.pem"]
    assert config.internal.tls_ca == f"{root}/ca.pem"
    assert config.datanode_directories == tuple(tmp_path / "data" / f"datanode-{number}" for number in (1, 2, 3))


def test_without_files_there_are_no_paths(tmp_path: Path) -> None:
    """An empty path stays empty, and is not the working directory."""
    config = load(tmp_path)
    assert (config.tls_cert, config.tls_key, config.internal.tls_ca) == ("", "", "")
    assert config.reserve_bytes is None
    assert config.endpoint == "http://127.0.0.1:9000"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"surprise": 1}, "surprise"),
        ({"data": []}, "no data directory"),
        ({"data": [""]}, "no data directory"),
        ({"data": ["a", "a/../a"]}, "given twice"),
        ({"data": ["a", "b"], "datanodes": 2}, "goes with a single --data"),
        ({"datanodes": 65}, "between 0 and 64"),
        ({"datanodes": -1}, "between 0 and 64"),
        ({"replicas": 0}, "between 1 and 16"),
        ({"datanodes": 64, "replicas": 17}, "between 1 and 16"),
        ({"replicas": 4}, "needs as many datanodes"),
        ({"redundancy": "ec:4+2"}, "redundancy ec:4\\+2 needs 6 datanodes; there are 3"),
        ({"redundancy": "raid:5"}, "no redundancy"),
        ({"redundancy": "ec:2+1", "replicas": 2}, "two ways"),
        ({"survive_min": {"level": "rack", "losses": 1}}, "rack"),
        ({"survive_min": {"level": "host", "losses": 2}}, "replica:2 survives 1 losses"),
        ({"survive_min": {"losses": 1}}, "level"),
        ({"workers": 65}, "between 1 and 64 workers"),
        ({"workers": -1}, "workers"),
        ({"tls_cert": "c"}, "go together"),
        ({"tls_key": "k"}, "go together"),
        ({"listen": "x"}, "HOST:PORT"),
        ({"metadata": {"engine": "oracle"}}, "oracle"),
        ({"durability": "maybe"}, "fsync or none"),
        ({"bucket_defaults": "open"}, "acl or aws"),
        ({"chunk_size_bytes": 5}, "64 KiB"),
        ({"inline_size_bytes_max": 1 << 20}, "64 KiB"),
        ({"reserve_bytes": -1}, "reserve_bytes"),
        ({"scrub_bytes_per_s": 0}, "scrub_bytes_per_s"),
        ({"scrub_interval_s": 0}, "scrub_interval_s"),
        ({"cipher": "none"}, "cipher"),
        ({"cipher": "rot13"}, "rot13"),
        ({"internal": {"tls_cert": "c"}}, "go with internal.listen"),
        ({"internal": {"listen": "https://h:9"}}, "needs internal.tls_cert"),
        ({"internal": {"listen": "http://127.0.0.1:9", **TLS}}, "https://HOST:PORT"),
        ({"internal": {"listen": "http://10.0.0.1:9", **TLS}}, "loopback only"),
        ({"internal": {"listen": "unix:/x", **TLS}}, "https://HOST:PORT"),
        ({"internal": {"listen": "https://0.0.0.0:9", **TLS}}, "not every address"),
        ({"internal": {"listen": "https://h:65500", **TLS}}, "port of internal.listen"),
        ({"internal": {"listen": "https://h:0", **TLS}}, "port of internal.listen"),
        ({"internal": {"surprise": 1}}, "surprise"),
        ({"internal": {"masters": ["https://h:9"]}}, "go with internal.listen"),
        ({"internal": {"listen": "https://h:9", **TLS, "masters": ["unix:/x"]}}, "internal.masters are"),
        ({"internal": {"listen": "https://h:9", **TLS, "masters": ["http://h:9"]}}, "internal.masters: "),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    """With the name of the field or flag."""
    with pytest.raises(ConfigError, match=reason) as caught:
        load(tmp_path, **fields)
    assert "\n" not in str(caught.value)


def test_without_datanodes_here_any_redundancy_may_be_asked_for(tmp_path: Path) -> None:
    """They are elsewhere, or join later."""
    assert load(tmp_path, datanodes=0, replicas=5).datanode_directories == ()
    internal = {"listen": "https://h:9100", **TLS}
    assert load(tmp_path, datanodes=1, replicas=5, internal=internal).replicas == 5


@given(
    st.dictionaries(
        st.sampled_from([*Config.__struct_fields__, "x"]), st.none() | st.integers() | st.text(), max_size=4
    )
)
def test_any_document_is_a_config_or_one_line(fields: dict[str, Any]) -> None:
    """Never another exception."""
    try:
        load_config(None, fields, {})
    except ConfigError as error:
        assert str(error)


@pytest.mark.parametrize("load", [lambda path: load_config(path, {}, {}), load_worker_config])
def test_a_file_without_end_is_refused_unread(tmp_path: Path, load: Callable[[Path], object]) -> None:
    """More than the bound is one line that names the file, though its beginning alone could be parsed."""
    path = tmp_path / "config.json"
    path.write_text("{}" + " " * CONFIG_BYTES_MAX)
    with pytest.raises(ConfigError, match=re.escape(f"{path} is larger than {CONFIG_BYTES_MAX} bytes")):
        load(path)
