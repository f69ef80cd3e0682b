"""Listings: pages that add up, hostile keys, both versions and encodings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.s3gw.gateway import ALICE, Gateway
from tests.s3gw.raw import object_path, send
from tests.s3gw.refusal import refusal

HOSTILE = ["a", "a/b", "a//b", "/lead", "dir/", "dir/x", "p+q", "p q", "é", "🎈", "%2F", "..", "a&b", "<x>", '"', "ü/ö"]


def fill(s3: Any, bucket: str, names: list[str]) -> None:
    """An empty object for each key."""
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"")


def page_v2(s3: Any, bucket: str, size: int, **arguments: Any) -> tuple[list[str], list[str]]:
    """All keys and prefixes, page by page; AssertionError when a token does not advance."""
    keys: list[str] = []
    prefixes: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = s3.list_objects_v2(Bucket=bucket, MaxKeys=size, **token, **arguments)
        more = [one["Key"] for one in page.get("Contents", [])]
        rolled = [one["Prefix"] for one in page.get("CommonPrefixes", [])]
        assert page["KeyCount"] == len(more) + len(rolled) <= size
        keys += more
        prefixes += rolled
        if not page["IsTruncated"]:
            return keys, prefixes
        assert page["NextContinuationToken"] != token.get("ContinuationToken")
        token = {"ContinuationToken": page["NextContinuationToken"]}


def page_v1(s3: Any, bucket: str, size: int, **arguments: Any) -> tuple[list[str], list[str]]:
    """The same by markers, as a V1 client goes on."""
    keys: list[str] = []
    prefixes: list[str] = []
    marker = ""
    while True:
        page = s3.list_objects(Bucket=bucket, MaxKeys=size, Marker=marker, **arguments)
        more = [one["Key"] for one in page.get("Contents", [])]
        keys += more
        prefixes += [one["Prefix"] for one in page.get("CommonPrefixes", [])]
        assert ("NextMarker" in page) == (page["IsTruncated"] and "Delimiter" in arguments)
        if not page["IsTruncated"]:
            return keys, prefixes
        following = page.get("NextMarker") or more[-1]
        assert following > marker
        marker = following


def expected(names: list[str], prefix: str = "", delimiter: str = "") -> tuple[list[str], list[str]]:
    """What a listing of these keys gives, in byte order."""
    keys: list[str] = []
    prefixes: list[str] = []
    for name in sorted(names, key=str.encode):
        if not name.startswith(prefix):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            rolled = prefix + rest[: rest.index(delimiter) + len(delimiter)]
            if rolled not in prefixes:
                prefixes.append(rolled)
        else:
            keys.append(name)
    return keys, prefixes


@pytest.mark.parametrize("pages", [page_v1, page_v2])
@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("prefix", "delimiter"), [("", ""), ("", "/"), ("a", "/"), ("dir/", "/"), ("", "b"), ("zz", "")]
)
def test_pages_add_up(s3: Any, gateway: Gateway, pages: Any, size: int, prefix: str, delimiter: str) -> None:
    """Every key and prefix exactly once, in byte order, whatever the page size."""
    if not [one for one in s3.list_buckets().get("Buckets", []) if one["Name"] == "hostile"]:
        s3.create_bucket(Bucket="hostile")
        fill(s3, "hostile", HOSTILE)
    arguments = {"Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    assert pages(s3, "hostile", size, **arguments) == expected(HOSTILE, prefix, delimiter)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text("ab/é ", min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    prefix=st.text("ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "b/"]),
    size=st.integers(1, 4),
)
def test_any_keys_page_alike(s3: Any, names: list[str], prefix: str, delimiter: str, size: int) -> None:
    """V1 and V2 agree with the plain definition."""
    s3.create_bucket(Bucket="any-keys")
    for one in s3.list_objects_v2(Bucket="any-keys").get("Contents", []):
        s3.delete_object(Bucket="any-keys", Key=one["Key"])
    fill(s3, "any-keys", names)
    arguments = {"Prefix": prefix} | ({"Delimiter": delimiter} if delimiter else {})
    wanted = expected(names, prefix, delimiter)
    assert page_v2(s3, "any-keys", size, **arguments) == wanted
    assert page_v1(s3, "any-keys", size, **arguments) == wanted


def test_an_entry_in_full(s3: Any, bucket: str) -> None:
    """Size, ETag, class, checksum; the owner always in V1 and when asked in V2."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", StorageClass="STANDARD_IA", ChecksumAlgorithm="SHA256")
    (v1,) = s3.list_objects(Bucket=bucket)["Contents"]
    (v2,) = s3.list_objects_v2(Bucket=bucket)["Contents"]
    (owned,) = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    owner = v1.pop("Owner")
    assert owner == {"ID": ALICE.canonical_id, "DisplayName": "Alice"} == owned.pop("Owner")
    assert v1 == v2 == owned
    assert v1["LastModified"] == s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert (v1["Size"], v1["ETag"]) == (5, '"5d41402abc4b2a76b9719d911017c592"')
    assert (v1["StorageClass"], v1["ChecksumAlgorithm"], v1["ChecksumType"]) == (
        "STANDARD_IA",
        ["SHA256"],
        "FULL_OBJECT",
    )


def test_start_after_and_echoes(s3: Any, bucket: str) -> None:
    """Exclusive; what was asked is echoed."""
    fill(s3, bucket, ["a", "b", "c"])
    page = s3.list_objects_v2(Bucket=bucket, StartAfter="a", MaxKeys=1)
    assert [one["Key"] for one in page["Contents"]] == ["b"]
    assert (page["StartAfter"], page["MaxKeys"], page["Name"], page["Prefix"]) == ("a", 1, bucket, "")
    assert page["IsTruncated"]


def test_max_keys_of_zero(s3: Any, bucket: str) -> None:
    """An empty page that is the last."""
    fill(s3, bucket, ["a"])
    for page in (s3.list_objects(Bucket=bucket, MaxKeys=0), s3.list_objects_v2(Bucket=bucket, MaxKeys=0)):
        assert not page["IsTruncated"] and "Contents" not in page


def test_control_characters_need_url_encoding(gateway: Gateway, s3: Any, bucket: str) -> None:
    """They are listed url-encoded; without it as the references that AWS writes."""
    assert send(gateway, "PUT", object_path(bucket, b"a\x01b")).status == 200
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a\x01b"]
    assert b"<Key>a&#1;b</Key>" in send(gateway, "GET", f"/{bucket}").body


def test_url_encoding_covers_every_name(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Row 7: keys, prefix, delimiter, marker, common prefixes; the type is echoed and the slash stays."""
    fill(s3, bucket, ["a+b/c d", "a+b/e+f/g"])
    body = send(gateway, "GET", f"/{bucket}?encoding-type=url&prefix=a%2Bb%2F&delimiter=%2B&marker=a%2B").body.decode()
    assert "<Prefix>a%2Bb/</Prefix>" in body and "<Delimiter>%2B</Delimiter>" in body
    assert "<Marker>a%2B</Marker>" in body and "<Key>a%2Bb/c%20d</Key>" in body
    assert "<CommonPrefixes><Prefix>a%2Bb/e%2B</Prefix>" in body and "<EncodingType>url</EncodingType>" in body


@pytest.mark.parametrize(
    "query", ["max-keys=-1", "max-keys=x", "encoding-type=zip", "list-type=2&continuation-token=x", "list-type=9"]
)
def test_bad_arguments(gateway: Gateway, bucket: str, query: str) -> None:
    """InvalidArgument."""
    answer = send(gateway, "GET", f"/{bucket}?{query}")
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_an_empty_token_is_none(s3: Any, bucket: str) -> None:
    """Some clients begin with one; it is echoed."""
    fill(s3, bucket, ["a", "b"])
    page = s3.list_objects_v2(Bucket=bucket, ContinuationToken="", StartAfter="a")
    assert ([entry["Key"] for entry in page["Contents"]], page["ContinuationToken"]) == (["b"], "")


def test_a_marker_within_a_common_prefix_is_past_it(s3: Any, bucket: str) -> None:
    """As AWS has it: the prefix and all below it count as listed before."""
    fill(s3, bucket, ["d/a/1", "d/a/2", "d/f"])
    page = s3.list_objects(Bucket=bucket, Prefix="d/", Delimiter="/", Marker="d/a/1")
    assert [entry["Key"] for entry in page["Contents"]] == ["d/f"] and "CommonPrefixes" not in page


def test_a_missing_bucket(s3: Any) -> None:
    """NoSuchBucket names it."""
    refused = refusal(s3.list_objects_v2, Bucket="no-such-bucket")
    assert (refused.code, refused.error["BucketName"]) == ("NoSuchBucket", "no-such-bucket")
