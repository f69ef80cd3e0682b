"""The shapes of a lent draft: both ways, bounded, and nothing but ValueError for any bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.patience import PATIENCE_S, PROGRESS_BYTES
from storage.base.internal_server import STALL_TIMEOUT_S
from storage.chunks.store import DIGEST_BYTES, ChunkReceipt
from storage.datanode import near_wire
from storage.datanode.near_wire import Loan
from storage.datanode.wire import CHUNK_BYTES_MAX

LENGTHS = st.integers(1, CHUNK_BYTES_MAX)
RECEIPTS = st.builds(ChunkReceipt, st.integers(0, 2**63), st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES))


def encoded(headers: dict[str, str]) -> dict[bytes, bytes]:
    """As they come over the wire."""
    return {name.encode(): value.encode() for name, value in headers.items()}


@given(LENGTHS)
def test_headers_both_ways(length: int) -> None:
    """Of a fresh token."""
    loan = Loan("ab" * near_wire.TOKEN_BYTES, length)
    assert near_wire.parse_headers(encoded(near_wire.format_headers(loan))) == loan


@given(LENGTHS, RECEIPTS, st.data())
def test_the_account_is_the_end_of_the_body(length: int, receipt: ChunkReceipt, data: st.DataObject) -> None:
    """However much of the padding was sent ahead."""
    ahead = data.draw(st.integers(0, min(10, near_wire.padding_bytes(length))))
    body = near_wire.SIGN_OF_LIFE * ahead + bytes(near_wire.padding_bytes(length) - ahead)
    body += near_wire.format_account(receipt)
    assert len(body) == near_wire.body_bytes(length)
    assert near_wire.parse_account(body) == receipt


@pytest.mark.parametrize(
    "token",
    ["", "0" * 31, "0" * 33, "A" * 32, "../../../../../etc/passwd0000000", "0" * 31 + "/", "0" * 32 + "\n"],
)
def test_tokens_are_hex(token: str) -> None:
    """They become part of a file's name."""
    with pytest.raises(ValueError, match="token"):
        near_wire.parse_headers(encoded({**near_wire.format_headers(Loan("0" * 32, 5)), near_wire.TOKEN_HEADER: token}))


@given(st.dictionaries(st.sampled_from([b"x-frostbyte-draft", b"x-frostbyte-length"]), st.binary(max_size=40)))
def test_any_headers(headers: dict[bytes, bytes]) -> None:
    """ValueError, or a loan within the bounds."""
    with contextlib.suppress(ValueError):
        loan = near_wire.parse_headers(headers)
        assert 0 < loan.length <= CHUNK_BYTES_MAX
        assert len(loan.token) == 32


@given(st.binary(max_size=40))
def test_any_account(body: bytes) -> None:
    """ValueError, or a receipt that a store can compare."""
    with contextlib.suppress(ValueError):
        assert len(near_wire.parse_account(body).digest) == DIGEST_BYTES


def test_the_slowest_client_leaves_enough_padding() -> None:
    """Signs of life reach until its chunk is there, and come more often than the datanode's server asks for some."""
    assert near_wire.SIGN_INTERVAL_S < STALL_TIMEOUT_S
    slowest_s = near_wire.SIGN_PER_BYTES * PATIENCE_S / PROGRESS_BYTES
    assert slowest_s < near_wire.SIGN_INTERVAL_S
