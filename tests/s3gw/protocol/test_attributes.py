"""Attributes: what comes in with headers goes out with headers, and nothing can be smuggled into one."""

from __future__ import annotations

from email.header import decode_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.attributes import (
    STORAGE_CLASSES,
    USER_METADATA_BYTES_MAX,
    decode_metadata,
    encode_metadata,
    format_attributes,
    parse_attributes,
    parse_response_overrides,
    parse_user_metadata,
    strip_aws_chunked,
)
from s3gw.protocol.errors import S3Error
from storage.model import Attributes


def refused(headers: dict[str, str]) -> str:
    """The code that headers are refused with."""
    with pytest.raises(S3Error) as caught:
        parse_attributes(headers)
    return caught.value.code


def test_nothing_said_means_the_defaults() -> None:
    """binary/octet-stream, as on AWS."""
    assert parse_attributes({}) == Attributes()
    assert parse_attributes({"content-type": "", "x-amz-tagging": "", "x-amz-acl": "", "x-amz-meta-": ""}).tags == {}


def test_standard_headers_are_echoed_verbatim() -> None:
    """Expires is not even looked at."""
    headers = {
        "content-type": "text/plain",
        "content-disposition": 'attachment; filename="é"',
        "content-language": "de",
        "cache-control": "no-cache",
        "expires": "whenever",
        "content-encoding": "gzip",
        "x-amz-website-redirect-location": "/other",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-meta-A-b": "c",
    }
    lines = dict(format_attributes(parse_attributes(headers)))
    assert lines == {name.encode("latin-1"): text.encode("latin-1") for name, text in headers.items()}


@pytest.mark.parametrize(
    ("encoding", "kept"),
    [
        ("aws-chunked", ""),
        ("AWS-Chunked", ""),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("gzip", "gzip"),
        ("aws-chunked, gzip, br", "gzip,br"),
        (",", ","),
        ("deflate, gzip", "deflate, gzip"),
    ],
)
def test_only_aws_chunked_is_stripped(encoding: str, kept: str) -> None:
    """Row 4; the header goes when nothing is left."""
    assert strip_aws_chunked(encoding) == kept
    assert parse_attributes({"content-encoding": encoding}).headers.get("content-encoding", "") == kept


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_metadata_round_trips_through_headers(text: str) -> None:
    """Whatever is stored leaves as printable ASCII and is understood again."""
    raw = encode_metadata(text)
    assert all(0x20 <= byte <= 0x7E for byte in raw)
    assert decode_metadata(raw.decode("ascii")) == text


@given(st.text(max_size=40) | st.text("=?UTF-8BQ utf_+/", max_size=40))
def test_any_header_value_decodes(raw: str) -> None:
    """Broken encoded words are taken as they are; the outcome can always be stored."""
    decode_metadata(raw).encode("utf-8", "surrogatepass")
    decode_metadata("=?utf-8?q?" + raw + "?=").encode("utf-8", "surrogatepass")


def test_raw_utf_8_and_latin_1_metadata() -> None:
    """The bytes as latin-1: UTF-8 when they are that, latin-1 else."""
    assert decode_metadata("é".encode().decode("latin-1")) == "é"
    assert decode_metadata("\xe9") == "é"


def test_encoded_words() -> None:
    """Both encodings of RFC 2047, adjacent words joined, unknown character sets left alone."""
    assert decode_metadata("=?UTF-8?B?w6k=?=") == "é"
    assert decode_metadata("=?UTF-8?Q?=C3=A9_x?=") == "é x"
    assert decode_metadata("=?UTF-8?B?w6k=?= =?UTF-8?B?w6k=?=") == "éé"
    assert decode_metadata("=?klingon?B?w6k=?=") == "=?klingon?B?w6k=?="
    ((raw, charset),) = decode_header(encode_metadata("naïve").decode())
    assert (raw.decode(charset or ""), charset) == ("naïve", "utf-8")


def test_a_decoded_line_break_cannot_split_a_header() -> None:
    """It goes out encoded again."""
    text = decode_metadata("=?UTF-8?B?YQ0KeC1ldmlsOiAx?=")
    assert text == "a\r\nx-evil: 1"
    assert b"\r" not in encode_metadata(text) and b"\n" not in encode_metadata(text)


def test_the_cap_of_user_metadata() -> None:
    """2 KB of names and values, counted as UTF-8."""
    assert parse_user_metadata({"x-amz-meta-a": "v" * (USER_METADATA_BYTES_MAX - 1)})
    with pytest.raises(S3Error) as caught:
        parse_user_metadata({"x-amz-meta-a": "v" * USER_METADATA_BYTES_MAX})
    assert caught.value.code == "MetadataTooLarge"
    assert caught.value.extra == {"Size": "2049", "MaxSizeAllowed": "2048"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-storage-class": "WARM"}, "InvalidStorageClass"),
        ({"x-amz-website-redirect-location": "ftp://x"}, "InvalidRequest"),
        ({"x-amz-tagging": "a=1&a=2"}, "InvalidTag"),
    ],
)
def test_what_would_lose_its_meaning_is_refused(headers: dict[str, str], code: str) -> None:
    """Never stored as if it had been understood."""
    assert refused(headers) == code


@pytest.mark.parametrize("storage_class", sorted(STORAGE_CLASSES))
def test_storage_classes_are_echoed(storage_class: str) -> None:
    """All but the default show in a header."""
    attributes = parse_attributes({"x-amz-storage-class": storage_class})
    shown = dict(format_attributes(attributes)).get(b"x-amz-storage-class", b"STANDARD")
    assert shown.decode() == storage_class


@pytest.mark.parametrize("acl", ["private", "bucket-owner-full-control"])
def test_an_acl_that_says_what_holds_is_taken(acl: str) -> None:
    """s3fs sends one with every PUT."""
    parse_attributes({"x-amz-acl": acl, "x-amz-server-side-encryption": "AES256"})


def test_response_overrides() -> None:
    """Only what can stand in a header."""
    query = {"response-content-type": "text/x", "response-expires": "", "other": "x", "response-cache-control": "é"}
    assert parse_response_overrides(query) == {
        b"content-type": b"text/x",
        b"expires": b"",
        b"cache-control": "é".encode(),
    }
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_response_overrides({"response-content-type": "a\r\nx-evil: 1"})
