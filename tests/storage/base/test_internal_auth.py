"""Internal tokens: derived as written down, apart from each other, and tickets that open one chunk until a moment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.ids import BLOB_ID_BYTES, CHUNK_INDEX_MAX, ChunkId
from storage.base.internal_auth import (
    access_token,
    bearer,
    derive_node_key,
    is_bearer,
    make_pull_ticket,
    report_token,
    verify_pull_ticket,
)

INTERNAL_KEY = bytes(range(32))
NODE_KEY = derive_node_key(INTERNAL_KEY, "datanode", "0" * 32)
CHUNK_ID = ChunkId(b"b" * BLOB_ID_BYTES, 7)
NAMES = st.from_regex(r"[a-z0-9._-]{1,64}", fullmatch=True)


def test_known_answers() -> None:
    """The derivation is a format: nodes of one cluster may run different releases."""
    assert NODE_KEY.hex() == "fbfaa54edd02bea1ae1d432c28ccbd2b3577e2b6cb1686c490cb0aff29027a8b"
    assert access_token(NODE_KEY) == "8a583bf9c9ddd7f74e208b729c897b6cd55007b95223fba1f5153fddd8a060f9"
    assert report_token(NODE_KEY) == "669f76289ed374b6e4f49e66f6f865be8bef4cb7484f69cb1a917e36d06e628c"
    assert make_pull_ticket(NODE_KEY, CHUNK_ID, 1_700_000_000_000) == (
        "1700000000000.1169e582a0e8ba6e15a8f589a8a05c3795993b493024ce389474bbc563006084"
    )


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_nodes_never_share_a_key(role: str, node: str, other_role: str, other_node: str) -> None:
    """Also where role and id would run together to the same text."""
    same = (role, node) == (other_role, other_node)
    assert (derive_node_key(INTERNAL_KEY, role, node) == derive_node_key(INTERNAL_KEY, other_role, other_node)) is same


@pytest.mark.parametrize(
    ("role", "node"), [("", "n"), ("r", ""), ("r\0", "n"), ("R", "n"), ("r", "n" * 65), ("r", "a/b")]
)
def test_strange_names_get_no_key(role: str, node: str) -> None:
    """Names are what the format says."""
    with pytest.raises(ValueError, match="role"):
        derive_node_key(INTERNAL_KEY, role, node)


def test_an_internal_key_of_another_size_is_refused() -> None:
    """A truncated file must not become a weak key."""
    with pytest.raises(ValueError, match="32 bytes"):
        derive_node_key(b"short", "datanode", "n")


def test_tokens_of_one_key_differ() -> None:
    """Who hears a report token cannot call the node with it."""
    assert access_token(NODE_KEY) != report_token(NODE_KEY)


@given(st.binary(max_size=200))
def test_only_the_token_itself_is_accepted(presented: bytes) -> None:
    """Any other header is refused, and never raises."""
    token = access_token(NODE_KEY)
    assert is_bearer(presented, token) is (presented == bearer(token).encode())


def test_the_token_is_accepted_as_text_and_as_bytes() -> None:
    """Servers differ in what they hand out."""
    token = access_token(NODE_KEY)
    assert is_bearer(bearer(token), token)
    assert is_bearer(bearer(token).encode(), token)
    assert not is_bearer(token, token)


@given(st.binary(min_size=BLOB_ID_BYTES, max_size=BLOB_ID_BYTES), st.integers(0, CHUNK_INDEX_MAX))
def test_a_ticket_opens_its_chunk_only(blob_id: bytes, index: int) -> None:
    """Of this node, before its end."""
    chunk_id = ChunkId(blob_id, index)
    ticket = make_pull_ticket(NODE_KEY, chunk_id, 1000)
    assert verify_pull_ticket(NODE_KEY, chunk_id, ticket, 999)
    assert not verify_pull_ticket(NODE_KEY, chunk_id, ticket, 1000)
    assert not verify_pull_ticket(NODE_KEY, ChunkId(blob_id, (index + 1) % CHUNK_INDEX_MAX), ticket, 999)
    assert not verify_pull_ticket(bytes(32), chunk_id, ticket, 999)


def test_the_end_of_a_ticket_cannot_be_moved() -> None:
    """The moment is under the MAC."""
    mac = make_pull_ticket(NODE_KEY, CHUNK_ID, 1000).partition(".")[2]
    assert not verify_pull_ticket(NODE_KEY, CHUNK_ID, f"9999999.{mac}", 999)
    assert not verify_pull_ticket(NODE_KEY, CHUNK_ID, f"01000.{mac[:-1]}", 999)


@given(st.text(max_size=120))
def test_any_text_as_a_ticket_is_refused(text: str) -> None:
    """Never an exception."""
    assert not verify_pull_ticket(NODE_KEY, CHUNK_ID, text, 0)
