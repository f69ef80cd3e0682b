"""Names on a datanode's disk: they sort as ids do, and only ours are taken for ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.ids import ChunkId, make_blob_id
from storage.chunks.layout import CHUNK_NAME, GROUP_NAME, SetAside, group_name, parse_quarantine_name, quarantine_name

IDS = st.builds(
    lambda session, counter, index: ChunkId(make_blob_id(session, counter), index),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)


@given(first=IDS, second=IDS)
def test_names_sort_as_ids_do(first: ChunkId, second: ChunkId) -> None:
    """By directory and then by name is by id."""
    names = [(group_name(str(of)), str(of)) for of in (first, second)]
    assert (names[0] < names[1]) == (first < second)


@given(of=IDS, neighbour=st.integers(-5000, 5000))
def test_neighbours_share_a_directory(of: ChunkId, neighbour: int) -> None:
    """4096 blobs of a session to a directory, with all of their chunks."""
    counter = int.from_bytes(of.blob_id[8:], "big")
    other = min(max(counter + neighbour, 0), 2**64 - 1)
    other_id = ChunkId(make_blob_id(of.session_id, other), 3)
    assert (group_name(str(of)) == group_name(str(other_id))) == (counter // 4096 == other // 4096)


@given(of=IDS, set_aside_ms=st.integers(0, 10**15), is_damaged=st.booleans())
def test_quarantine_names(of: ChunkId, set_aside_ms: int, is_damaged: bool) -> None:
    """Tell the chunk, the time, and whether it is damage."""
    found = SetAside(of, set_aside_ms, is_damaged)
    assert parse_quarantine_name(quarantine_name(found)) == found


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x",
        "a" * 40,
        "a" * 40 + ".",
        "a" * 40 + ".1x",
        "A" * 40 + ".1",
        "a" * 40 + ".1\n",
        "a" * 40 + ".1.dam",
        "../" + "a" * 37,
    ],
)
def test_foreign_names_are_not_ours(name: str) -> None:
    """In the quarantine and among the chunks."""
    assert parse_quarantine_name(name) is None
    assert not GROUP_NAME.match(name)
    assert not CHUNK_NAME.match(name + "\n")
