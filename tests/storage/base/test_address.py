"""Addresses: what is accepted, what is refused, and that text and value go both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.address import PORT_MAX, SOCKET_PATH_BYTES_MAX, Address, is_loopback, parse_address

LOOPBACKS = ["127.0.0.1", "127.1.2.3", "::1", "localhost"]
HOSTS = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z][a-z0-9-]{0,10}){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)
ADDRESSES = st.one_of(
    st.tuples(st.just("https"), st.just(""), HOSTS, st.integers(0, PORT_MAX)).map(Address._make),
    st.tuples(st.just("http"), st.just(""), st.sampled_from(LOOPBACKS), st.integers(0, PORT_MAX)).map(Address._make),
    st.tuples(st.just("unix"), st.from_regex(r"/[a-z0-9/._ -]{1,90}", fullmatch=True)).map(
        lambda parts: Address(*parts)
    ),
)


@given(ADDRESSES)
def test_text_and_value_go_both_ways(address: Address) -> None:
    """str() of an address parses to the same address."""
    assert parse_address(str(address)) == address


@given(st.text(max_size=600))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    """Whatever the text, the answer is an Address that says the same or a ValueError."""
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
    assert address.scheme != "http" or is_loopback(address.host)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.sock", Address("unix", path="/run/a.sock")),
        ("http://127.0.0.1:0", Address("http", host="127.0.0.1", port=0)),
        ("http://[::1]:9100/", Address("http", host="::1", port=9100)),
        ("https://node-1.example:443", Address("https", host="node-1.example", port=443)),
        ("https://[2001:db8::1]:9", Address("https", host="2001:db8::1", port=9)),
        ("https://0.0.0.0:9", Address("https", host="0.0.0.0", port=9)),
    ],
)
def test_the_three_forms(text: str, address: Address) -> None:
    """Each form gives the parts it names."""
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:relative",
        "unix:",
        "unix:/with\x00nul",
        "unix:/" + "a" * SOCKET_PATH_BYTES_MAX,
        "http://127.0.0.1",
        "http://127.0.0.1:65536",
        "https://host:-1",
        "https://host:9\n",
        "https://user@host:9",
        "https://host:9/path",
        "https://[::g]:9",
        "https://[1.2.3.4]:9",
        "ftp://host:9",
        "https://" + "a" * 600 + ":9",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"."):
        parse_address(text)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "node-1", "localhost.example", "[::]", "128.0.0.1"])
def test_plain_http_is_for_loopback_only(host: str) -> None:
    """A token never crosses a network in the clear."""
    with pytest.raises(ValueError, match="loopback only"):
        parse_address(f"http://{host}:9000")


def test_the_base_url_of_a_socket_has_a_placeholder_host() -> None:
    """HTTP wants a host even where there is none."""
    assert parse_address("unix:/run/a.sock").base_url == "http://localhost"
    assert parse_address("https://h:9").base_url == "https://h:9"
