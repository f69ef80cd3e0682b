"""Copy sources, version ids and the catalogue of errors."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.copy_source import SourceName, parse_copy_source, parse_directive
from s3gw.protocol.errors import CATALOGUE, S3Error
from s3gw.protocol.versions import check_version_id, find_version_id
from s3gw.refusals import REFUSAL_CODES, translate
from storage.base import errors
from storage.model import Bucket
from tests.s3gw.gateway import ALICE

VERSION = "0" * 31 + "1"
BUCKET = Bucket(1, "b", ALICE.canonical_id, "us-east-1", 0, "bk")


@pytest.mark.parametrize(
    ("header", "source"),
    [
        ("b/k", SourceName("b", b"k", None)),
        ("/b/k", SourceName("b", b"k", None)),
        ("b//k", SourceName("b", b"/k", None)),
        ("b/a%20b", SourceName("b", b"a b", None)),
        ("b/a+b", SourceName("b", b"a b", None)),
        ("b/a%2Bb", SourceName("b", b"a+b", None)),
        ("b/%3FversionId=x", SourceName("b", b"?versionId=x", None)),
        ("%2Fb%2Fk", SourceName("b", b"k", None)),
        (f"b/k?versionId={VERSION}", SourceName("b", b"k", VERSION)),
        ("b/k?versionId=null", SourceName("b", b"k", "null")),
    ],
)
def test_copy_sources(header: str, source: SourceName) -> None:
    """Leading slash, encoding and version."""
    assert parse_copy_source(header) == source


@pytest.mark.parametrize(
    "header",
    [
        "b",
        "b/",
        "/",
        "",
        "//k",
        "/b",
        "b/%FF",
        "é/k",
        "b/k?versionId=",
        "b/k?versionId=x",
        "b/" + "k" * 1025,
        "b/" + "k" * 9000,
    ],
)
def test_bad_copy_sources(header: str) -> None:
    """InvalidArgument."""
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_copy_source(header)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_encoded_key_is_a_source(key: str) -> None:
    """Strictly encoded, as the SDKs do."""
    assert parse_copy_source(f"b/{quote(key, safe='/~')}") == SourceName("b", key.encode(), None)


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_copy_source_is_parsed_or_refused(header: str) -> None:
    """Nothing but InvalidArgument."""
    try:
        parse_copy_source(header)
    except S3Error as error:
        assert error.code == "InvalidArgument"


def test_directives() -> None:
    """COPY unless REPLACE; nothing else."""
    name = "x-amz-metadata-directive"
    assert not parse_directive({}, name) and not parse_directive({name: "COPY"}, name)
    assert parse_directive({name: "REPLACE"}, name)
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_directive({name: "replace"}, name)


def test_version_ids() -> None:
    """null, or one of ours; an empty one is an error of its own."""
    assert find_version_id({}) is None
    assert check_version_id("null") == "null" and check_version_id(VERSION) == VERSION
    for text in ("", "x", "NULL", VERSION.replace("0", "Z"), "é" * 32):
        with pytest.raises(S3Error, match="InvalidArgument"):
            find_version_id({"versionId": text})


def test_an_unknown_code_is_a_mistake_in_the_program() -> None:
    """KeyError at the place that makes it."""
    with pytest.raises(KeyError):
        S3Error("NoSuchThing")


def test_the_catalogue_is_sound() -> None:
    """Statuses that exist, sentences that say something."""
    assert len(CATALOGUE) > 100
    assert all(300 <= entry.status < 600 and len(entry.message) > 8 for entry in CATALOGUE.values())


@pytest.mark.parametrize("refusal", sorted(set(errors.REFUSALS) - {"Refused"}))
def test_every_refusal_has_a_code_of_s3(refusal: str) -> None:
    """None falls through to a 500 by accident."""
    assert REFUSAL_CODES[refusal] in CATALOGUE
    translated = translate(errors.REFUSALS[refusal]("m"), "b", b"k", "u", "v")
    assert translated.code == REFUSAL_CODES[refusal]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.Unavailable(), "SlowDown", 503),
        (errors.NotEnoughNodes(), "ServiceUnavailable", 503),
        (errors.NodeFull(), "ServiceUnavailable", 503),
        (errors.NodeUnreachable(), "ServiceUnavailable", 503),
        (errors.Corrupt(), "InternalError", 500),
        (errors.SealBroken(), "InternalError", 500),
        (errors.UnknownKeyId(), "InternalError", 500),
        (errors.SessionFenced(), "ServiceUnavailable", 503),
        (errors.StalePlacement(node="7"), "ServiceUnavailable", 503),
        (errors.FrostbyteError(), "InternalError", 500),
    ],
)
def test_failures_below(error: errors.FrostbyteError, code: str, status: int) -> None:
    """Come back later, or it is our fault."""
    translated = translate(error, "b", b"k", "", "")
    assert (translated.code, translated.status) == (code, status)


def test_details_travel() -> None:
    """What AWS names in the document, and the marker in headers."""
    assert translate(errors.NoSuchKey(), "b", "é".encode(), "", "").extra == {"Key": "é"}
    assert translate(errors.NoSuchUpload(), "b", b"k", "u", "").extra == {"UploadId": "u"}
    assert translate(errors.PreconditionFailed(condition="If-Match"), "b", b"k", "", "").extra == {
        "Condition": "If-Match"
    }
    marked = translate(errors.NoSuchKey(delete_marker_version_id=VERSION), "b", b"k", "", "")
    assert marked.headers == {"x-amz-delete-marker": "true", "x-amz-version-id": VERSION}
