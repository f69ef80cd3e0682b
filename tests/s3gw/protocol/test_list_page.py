"""Paging: bounds of every count, tokens that come back or are refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.list_page import (
    ListQuery,
    UploadQuery,
    format_token,
    parse_count,
    parse_list_parts,
    parse_list_uploads,
    parse_list_v1,
    parse_list_v2,
    parse_token,
)


@given(st.binary(max_size=1024))
def test_tokens_come_back(after: bytes) -> None:
    """Any key or prefix survives its token."""
    assert parse_token(format_token(after)) == after


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_foreign_tokens_are_refused(token: str) -> None:
    """InvalidArgument, unless hypothesis forged one that is ours."""
    try:
        after = parse_token(token)
    except S3Error as error:
        assert error.code == "InvalidArgument"
    else:
        assert parse_token(format_token(after)) == after


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_mangled_token_is_refused(after: bytes, data: st.DataObject) -> None:
    """One flipped bit anywhere is noticed."""
    raw = bytearray(base64.urlsafe_b64decode(format_token(after)))
    position = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[position // 8] ^= 1 << position % 8
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_token(base64.urlsafe_b64encode(raw).decode())


@pytest.mark.parametrize("token", ["", "a", "====", "x" * 5000, "é"])
def test_tokens_that_are_none(token: str) -> None:
    """Empty, short, endless or foreign characters."""
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_token(token)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 1000), ("0", 0), ("1", 1), ("1000", 1000), ("1001", 1000), ("9" * 5000, 1000), ("007", 7)],
)
def test_counts_are_clamped(text: str, count: int) -> None:
    """0 to the largest; absent or empty means the largest."""
    assert parse_count({"max-keys": text}, "max-keys", 1000) == count


@pytest.mark.parametrize("text", ["-1", "x", "1.5", " 1", "１", "0x10", "1e3"])
def test_counts_that_are_none(text: str) -> None:
    """InvalidArgument names the parameter and its value."""
    with pytest.raises(S3Error) as caught:
        parse_count({"max-keys": text}, "max-keys", 1000)
    assert caught.value.code == "InvalidArgument"
    assert caught.value.extra == {"ArgumentName": "max-keys", "ArgumentValue": text}


def test_v1() -> None:
    """The marker is exclusive."""
    query = {"prefix": "p/", "delimiter": "/", "marker": "p/é", "max-keys": "7", "encoding-type": "url"}
    assert parse_list_v1(query) == ListQuery(b"p/", b"/", "p/é".encode(), 7, True)
    assert parse_list_v1({}) == ListQuery(b"", b"", b"", 1000, False)


def test_v2_token_wins_over_start_after() -> None:
    """Both are kept for the echo."""
    token = format_token(b"t")
    parsed = parse_list_v2({"start-after": "s", "continuation-token": token, "fetch-owner": "true"})
    assert parsed == ListQuery(b"", b"", b"t", 1000, False, token, b"s", True)
    assert parse_list_v2({"start-after": "s"}).after == b"s"
    empty = parse_list_v2({"start-after": "s", "continuation-token": ""})
    assert (empty.after, empty.token) == (b"s", "")


def test_upload_id_marker_needs_a_key_marker() -> None:
    """Alone it is ignored, as AWS has it."""
    assert parse_list_uploads({"upload-id-marker": "u"}).upload_id_marker == ""
    parsed = parse_list_uploads({"upload-id-marker": "u", "key-marker": "k", "max-uploads": "2"})
    assert parsed == UploadQuery(b"", b"", b"k", "u", 2, False)


def test_parts() -> None:
    """The marker is a number up to 10,000."""
    assert parse_list_parts({"part-number-marker": "99999", "max-parts": "5"}) == (10_000, 5, False)
    assert parse_list_parts({}) == (0, 1000, False)


def test_unknown_encoding_is_refused() -> None:
    """Only url is known."""
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_list_v1({"encoding-type": "base64"})
