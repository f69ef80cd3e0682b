"""Names and bodies of the journal's protocol: what fits comes back, anything else is a ValueError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datanode import journal_wire as wire

IDS = st.binary(min_size=16, max_size=16)
NAMES = st.one_of(
    st.builds(lambda it: wire.JournalName(wire.SEGMENT, it), IDS),
    st.builds(lambda it, piece: wire.JournalName(wire.SNAPSHOT, it, piece), IDS, st.none() | st.integers(0, 999_999)),
)


@given(name=NAMES)
def test_a_name_comes_back(name: wire.JournalName) -> None:
    assert wire.parse_name(str(name)) == name


@given(text=st.text(max_size=60) | st.from_regex(r"(segment|snapshot)-[0-9a-fA-F]{30,34}(-[0-9]{4,8})?(/|\n|\.\.)?"))
def test_nothing_else_is_a_name(text: str) -> None:
    """What is taken is written again as it came."""
    try:
        name = wire.parse_name(text)
    except ValueError:
        return
    assert str(name) == text
    assert "/" not in text and "." not in text


@given(owner=IDS, offset=st.none() | st.integers(0, wire.FILE_BYTES_MAX))
def test_who_changes_something_comes_back(owner: bytes, offset: int | None) -> None:
    target, _, query = wire.change_target(wire.FENCE, owner, offset).partition("?")
    assert target == wire.FENCE
    assert wire.parse_change(query.encode()) == (owner, offset)


@given(query=st.binary(max_size=100))
def test_any_query_is_parsed_or_refused(query: bytes) -> None:
    try:
        change = wire.parse_change(query)
    except ValueError:
        return
    assert len(change.owner) == wire.OWNER_BYTES


@pytest.mark.parametrize("query", [b"", b"owner=00", b"owner=" + b"g" * 32, b"owner=" + b"0" * 32 + b"&offset=-1"])
def test_a_query_without_an_owner_is_refused(query: bytes) -> None:
    with pytest.raises(ValueError, match="is"):
        wire.parse_change(query)


@given(fence=IDS, files=st.lists(st.tuples(NAMES.map(str), st.integers(0, wire.FILE_BYTES_MAX)), max_size=5))
def test_a_listing_comes_back(fence: bytes, files: list[tuple[str, int]]) -> None:
    listing = [wire.JournalFile(*file) for file in files]
    assert wire.parse_listing(wire.encode_listing(fence, listing)) == (fence, listing)


@given(body=st.binary(max_size=60))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    for parse in (wire.parse_listing, wire.parse_length, wire.parse_flag):
        try:
            parse(body)
        except ValueError:
            continue
