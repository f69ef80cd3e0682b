"""ListObjectVersions: its parameters, and that the document says what the page holds."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.version_list import VersionQuery, format_versions, parse_list_versions
from s3gw.protocol.xml import parse_xml
from storage.metadata.interface import VersionEntry, VersionPage

ID = "0000000000000001" + "ab" * 8
EVERYTHING = VersionQuery(b"", b"", b"", "", 1000, False)


def entry(object_key: bytes, *, version_id: str = ID, is_marker: bool = False, is_latest: bool = True) -> VersionEntry:
    """A line of a listing of somebody's."""
    checksum = ("", "") if is_marker else ("CRC32", "FULL_OBJECT")
    return VersionEntry(
        object_key, version_id, is_latest, is_marker, 3, "e" * 32, 1_000, "STANDARD", "owner", *checksum
    )


def test_parameters() -> None:
    """All of them at once, and none."""
    query = {
        "prefix": "p/",
        "delimiter": "/",
        "key-marker": "p/k",
        "version-id-marker": ID,
        "max-keys": "7",
        "encoding-type": "url",
    }
    assert parse_list_versions(query) == VersionQuery(b"p/", b"/", b"p/k", ID, 7, True)
    assert parse_list_versions({"version-id-marker": "", "key-marker": ""}) == EVERYTHING
    assert parse_list_versions({"key-marker": "k", "version-id-marker": "null"}).version_id_marker == "null"


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ({"version-id-marker": ID}, "version-id-marker"),
        ({"version-id-marker": ID, "key-marker": ""}, "version-id-marker"),
        ({"version-id-marker": "nonsense", "key-marker": "k"}, "version-id-marker"),
        ({"max-keys": "-1"}, "max-keys"),
        ({"encoding-type": "base64"}, "encoding-type"),
    ],
)
def test_parameters_that_are_refused(query: dict[str, str], argument: str) -> None:
    """InvalidArgument, with its name."""
    with pytest.raises(S3Error) as caught:
        parse_list_versions(query)
    assert (caught.value.code, caught.value.extra["ArgumentName"]) == ("InvalidArgument", argument)


def test_versions_and_markers_stand_in_one_order() -> None:
    """A marker has neither size nor ETag."""
    page = VersionPage((entry(b"a", is_marker=True), entry(b"a", is_latest=False, version_id="null")), (), None)
    root = parse_xml(format_versions("b", EVERYTHING, page, {"owner": "Somebody"}), "ListVersionsResult")
    marker, version = [child for child in root.children if child.name in ("Version", "DeleteMarker")]
    assert (marker.name, version.name) == ("DeleteMarker", "Version")
    assert [child.name for child in marker.children] == ["Key", "VersionId", "IsLatest", "LastModified", "Owner"]
    assert version.child_text("VersionId") == "null"
    assert (version.child_text("IsLatest"), marker.child_text("IsLatest")) == ("false", "true")
    assert version.child_text("ETag") == f'"{"e" * 32}"' and version.child_text("Size") == "3"
    assert version.child_text("ChecksumAlgorithm") == "CRC32"
    owner = version.child("Owner")
    assert owner is not None and owner.child_text("DisplayName") == "Somebody"


def test_where_the_next_page_begins() -> None:
    """Both markers; after a common prefix only its name."""
    root = parse_xml(format_versions("b", EVERYTHING, VersionPage((), (), (b"k", ID)), {}), "ListVersionsResult")
    assert root.child_text("IsTruncated") == "true"
    assert (root.child_text("NextKeyMarker"), root.child_text("NextVersionIdMarker")) == ("k", ID)
    root = parse_xml(format_versions("b", EVERYTHING, VersionPage((), (b"p/",), (b"p/", "")), {}), "ListVersionsResult")
    assert (root.child_text("NextKeyMarker"), root.child_text("NextVersionIdMarker")) == ("p/", None)
    root = parse_xml(format_versions("b", EVERYTHING, VersionPage((), (), None), {}), "ListVersionsResult")
    assert (root.child_text("IsTruncated"), root.child_text("NextKeyMarker")) == ("false", None)


@given(st.lists(st.text(min_size=1, max_size=30).map(lambda text: text.encode("utf-8", "replace")), max_size=5))
def test_names_survive_url_encoding(names: list[bytes]) -> None:
    """Keys, prefixes and markers are percent-encoded where that was asked for, whatever is in them."""
    last = names[-1] if names else b"x"
    query = VersionQuery(last, last, last, "", 1000, True)
    page = VersionPage(tuple(entry(name) for name in names), (last,), (last, ID))
    root = parse_xml(format_versions("b", query, page, {}), "ListVersionsResult")
    assert root.child_text("EncodingType") == "url"
    assert [unquote_to_bytes(one.child_text("Key") or "") for one in root.all("Version")] == names
    prefixes = [one.child_text("Prefix") for one in root.all("CommonPrefixes")]
    told = [root.child_text(name) for name in ("Prefix", "Delimiter", "KeyMarker", "NextKeyMarker")]
    assert {unquote_to_bytes(text or "") for text in prefixes + told} == {last}
