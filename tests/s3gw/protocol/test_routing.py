"""Routing: every request becomes one operation; no path is normalised; no sub-resource slips through."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.routing import (
    OBJECT_KEY_BYTES_MAX,
    QUERY_PARAMETERS_MAX,
    add_hoisted_headers,
    find_virtual_bucket,
    parse_query,
    parse_target,
    route_request,
)
from s3gw.protocol.subresources import BUCKET_SUBRESOURCES, OBJECT_SUBRESOURCES, SUBRESOURCE_NAMES

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH")
PLAIN = {
    Operation.GET_OBJECT,
    Operation.HEAD_OBJECT,
    Operation.PUT_OBJECT,
    Operation.COPY_OBJECT,
    Operation.DELETE_OBJECT,
    Operation.LIST_OBJECTS,
    Operation.LIST_OBJECTS_V2,
    Operation.HEAD_BUCKET,
    Operation.CREATE_BUCKET,
    Operation.DELETE_BUCKET,
}


def operation(method: str, target: str, headers: dict[str, str] | None = None) -> Operation:
    """Of a path-style request line."""
    path, _, query_string = target.partition("?")
    query = parse_query(query_string.encode())
    bucket, object_key = parse_target(path.encode(), "localhost", ())
    return route_request(method, bucket, object_key, query, headers or {}).operation


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", Operation.LIST_BUCKETS),
        ("POST", "/", Operation.METHOD_NOT_ALLOWED),
        ("GET", "/b", Operation.LIST_OBJECTS),
        ("GET", "/b/", Operation.LIST_OBJECTS),
        ("GET", "/b?list-type=1", Operation.LIST_OBJECTS),
        ("GET", "/b?list-type=2&prefix=x", Operation.LIST_OBJECTS_V2),
        ("GET", "/b?x-id=Whatever&cache=1", Operation.LIST_OBJECTS),
        ("PUT", "/b", Operation.CREATE_BUCKET),
        ("HEAD", "/b", Operation.HEAD_BUCKET),
        ("DELETE", "/b", Operation.DELETE_BUCKET),
        ("POST", "/b", Operation.POST_OBJECT),
        ("POST", "/b?delete", Operation.DELETE_OBJECTS),
        ("GET", "/b?uploads", Operation.LIST_MULTIPART_UPLOADS),
        ("GET", "/b?location", Operation.GET_BUCKET_SETTING),
        ("PUT", "/b?cors", Operation.PUT_BUCKET_CORS),
        ("GET", "/b?versions", Operation.LIST_OBJECT_VERSIONS),
        ("GET", "/b/k", Operation.GET_OBJECT),
        ("GET", "/b/k?partNumber=1", Operation.GET_OBJECT),
        ("GET", "/b/k?versionId=null", Operation.GET_OBJECT),
        ("GET", "/b/k?x-id=GetObject&unknown", Operation.GET_OBJECT),
        ("HEAD", "/b/k", Operation.HEAD_OBJECT),
        ("PUT", "/b/k", Operation.PUT_OBJECT),
        ("DELETE", "/b/k", Operation.DELETE_OBJECT),
        ("POST", "/b/k", Operation.METHOD_NOT_ALLOWED),
        ("POST", "/b/k?uploads", Operation.CREATE_MULTIPART_UPLOAD),
        ("PUT", "/b/k?partNumber=1&uploadId=u", Operation.UPLOAD_PART),
        ("PUT", "/b/k?uploadId=u", Operation.UPLOAD_PART),
        ("POST", "/b/k?uploadId=u", Operation.COMPLETE_MULTIPART_UPLOAD),
        ("DELETE", "/b/k?uploadId=u", Operation.ABORT_MULTIPART_UPLOAD),
        ("GET", "/b/k?uploadId=u", Operation.LIST_PARTS),
        ("GET", "/b/k?acl", Operation.GET_OBJECT_ACL),
        ("PUT", "/b/k?tagging", Operation.PUT_OBJECT_TAGGING),
        ("GET", "/b/k?cors", Operation.METHOD_NOT_ALLOWED),
        ("GET", "/b?torrent", Operation.METHOD_NOT_ALLOWED),
        ("HEAD", "/b/k?acl", Operation.METHOD_NOT_ALLOWED),
        ("OPTIONS", "/b/k", Operation.PREFLIGHT),
    ],
)
def test_operations(method: str, target: str, expected: Operation) -> None:
    """One operation for each request line."""
    assert operation(method, target) is expected


def test_copies_are_told_by_their_header() -> None:
    """An empty x-amz-copy-source is none."""
    copying = {"x-amz-copy-source": "b/k"}
    assert operation("PUT", "/b/k", copying) is Operation.COPY_OBJECT
    assert operation("PUT", "/b/k?partNumber=1&uploadId=u", copying) is Operation.UPLOAD_PART_COPY
    assert operation("PUT", "/b/k", {"x-amz-copy-source": ""}) is Operation.PUT_OBJECT


@pytest.mark.parametrize("target", ["/b/k?partNumber=1", "/b?list-type=3"])
def test_half_an_operation_is_refused(target: str) -> None:
    """A part without its upload would otherwise be stored as an object."""
    with pytest.raises(S3Error, match="InvalidArgument"):
        operation("PUT" if "part" in target else "GET", target)


@pytest.mark.parametrize("name", sorted(SUBRESOURCE_NAMES))
@pytest.mark.parametrize("method", METHODS)
def test_no_listed_sub_resource_is_a_plain_request(name: str, method: str) -> None:
    """On bucket and object, with and without a value, before and behind other parameters."""
    for path in ("/b", "/b/k"):
        for query in (name, f"{name}=", f"{name}=x", f"x-id=1&{name}", f"{name}&prefix=p&versionId=null"):
            assert operation(method, f"{path}?{query}") not in PLAIN


def test_every_row_names_a_permission() -> None:
    """A rule without one could not be authorized."""
    for table in (BUCKET_SUBRESOURCES, OBJECT_SUBRESOURCES):
        for methods in table.values():
            assert all(rule.permission.startswith("s3") for rule in methods.values())


@given(st.binary(min_size=1, max_size=40))
def test_any_key_survives_its_path(raw: bytes) -> None:
    """Encoded once, decoded once, never normalised; not UTF-8 is InvalidURI."""
    path = b"/b/" + quote(raw, safe="/").encode()
    try:
        raw.decode()
    except UnicodeDecodeError:
        with pytest.raises(S3Error, match="InvalidURI"):
            parse_target(path, "h", ())
        return
    assert parse_target(path, "h", ()) == ("b", raw)


@pytest.mark.parametrize("key", ["a//b", "/a", "//", "..", "./../x", "a+b", "a b", "%2F", "🎈", "\x01", "?", "#", "a/"])
def test_hostile_keys_stay_distinct(key: str) -> None:
    """Row 9."""
    assert parse_target(f"/b/{quote(key, safe='/')}".encode(), "h", ()) == ("b", key.encode())


@pytest.mark.parametrize(
    ("path", "code"),
    [
        (b"/b/%", "InvalidURI"),
        (b"/b/%zz", "InvalidURI"),
        (b"/b/%C3%28", "InvalidURI"),
        (b"//k", "InvalidURI"),
        (b"/%C3%A9/k", "InvalidBucketName"),
        (b"/b/" + b"k" * (OBJECT_KEY_BYTES_MAX + 1), "KeyTooLongError"),
        (b"/b/" + quote("é").encode() * (OBJECT_KEY_BYTES_MAX // 2 + 1), "KeyTooLongError"),
    ],
)
def test_refused_paths(path: bytes, code: str) -> None:
    """Bad escapes, bad UTF-8, too long: with AWS's codes."""
    with pytest.raises(S3Error) as caught:
        parse_target(path, "h", ())
    assert caught.value.code == code


def test_the_longest_key_is_taken() -> None:
    """1,024 bytes, however they were encoded."""
    path = b"/b/" + b"%6b" * OBJECT_KEY_BYTES_MAX
    assert parse_target(path, "h", ()) == ("b", b"k" * OBJECT_KEY_BYTES_MAX)


@pytest.mark.parametrize(
    ("host", "bucket"),
    [
        ("b.s3.test", "b"),
        ("b.s3.test:9000", "b"),
        ("B.S3.Test", "b"),
        ("a.b.s3.test", "a.b"),
        ("s3.test", ""),
        (".s3.test", ""),
        ("xs3.test", ""),
        ("[::1]", ""),
        ("[::1]:9000", ""),
        ("", ""),
    ],
)
def test_virtual_hosts(host: str, bucket: str) -> None:
    """Only under a configured domain."""
    assert find_virtual_bucket(host, ("s3.test",)) == bucket


def test_a_virtual_host_has_the_whole_path_as_its_key() -> None:
    """Also a path that looks like another bucket's."""
    assert parse_target(b"/other/k", "b.s3.test", ("s3.test",)) == ("b", b"other/k")
    assert parse_target(b"//k", "b.s3.test", ("s3.test",)) == ("b", b"/k")
    assert parse_target(b"/", "b.s3.test", ("s3.test",)) == ("b", b"")


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=8))
def test_queries_come_back(query: dict[str, str]) -> None:
    """Form encoding, plus for space, empty values kept; a signature's own parameters are left out."""
    try:
        encoded = urlencode(query).encode()
    except UnicodeEncodeError:
        return
    assert parse_query(encoded) == {name: text for name, text in query.items() if not name.startswith("X-Amz-")}


@given(st.binary(max_size=80))
def test_any_query_is_parsed_or_refused(raw: bytes) -> None:
    """Nothing but InvalidURI."""
    try:
        parse_query(raw)
    except S3Error as error:
        assert error.code == "InvalidURI"


def test_query_bounds_and_repeats() -> None:
    """The first of a name counts; a flood is refused."""
    assert parse_query(b"a=1&a=2&&=x&b") == {"a": "1", "b": ""}
    with pytest.raises(S3Error, match="InvalidURI"):
        parse_query(b"&".join(b"p%d=1" % n for n in range(QUERY_PARAMETERS_MAX + 1)))


def test_hoisted_headers_never_override_real_ones() -> None:
    """What a presigner moved into the query counts where no header says otherwise; checksums stay out."""
    headers = {"x-amz-acl": "private"}
    query = {"x-amz-acl": "public-read", "x-amz-meta-a": "1", "x-amz-checksum-crc32": "AAAAAA==", "prefix": "x"}
    add_hoisted_headers(headers, query)
    assert headers == {"x-amz-acl": "private", "x-amz-meta-a": "1"}
