"""PURE. A raw request → one typed operation with its bucket, object key and the permission it needs.

The path is decoded exactly once and never normalised: `a//b`, a leading `/` and `..` are parts of a key like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from s3gw.protocol.errors import S3Error
from s3gw.protocol.operations import Operation
from s3gw.protocol.subresources import (
    BUCKET_SUBRESOURCES,
    METHOD_NOT_ALLOWED,
    OBJECT_SUBRESOURCES,
    Rule,
    find_subresource,
)

OBJECT_KEY_BYTES_MAX = 1024
QUERY_PARAMETERS_MAX = 128

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_COPY_SOURCE = "x-amz-copy-source"
_SIGNATURE = b"X-Amz-"
_HOISTED = "x-amz-"


class Route(NamedTuple):
    """Where a request goes. bucket is `` for the service, object_key empty for a bucket."""

    operation: Operation
    permission: str
    bucket: str
    object_key: bytes
    subresource: str = ""


_SERVICE_RULES = {"GET": Rule(Operation.LIST_BUCKETS, "s3:ListAllMyBuckets")}
_BUCKET_RULES = {
    "GET": Rule(Operation.LIST_OBJECTS, "s3:ListBucket"),
    "HEAD": Rule(Operation.HEAD_BUCKET, "s3:ListBucket"),
    "PUT": Rule(Operation.CREATE_BUCKET, "s3:CreateBucket"),
    "DELETE": Rule(Operation.DELETE_BUCKET, "s3:DeleteBucket"),
    "POST": Rule(Operation.POST_OBJECT, "s3:PutObject"),
}
_LIST_V2 = Rule(Operation.LIST_OBJECTS_V2, "s3:ListBucket")
_OBJECT_RULES = {
    "GET": Rule(Operation.GET_OBJECT, "s3:GetObject"),
    "HEAD": Rule(Operation.HEAD_OBJECT, "s3:GetObject"),
    "PUT": Rule(Operation.PUT_OBJECT, "s3:PutObject"),
    "DELETE": Rule(Operation.DELETE_OBJECT, "s3:DeleteObject"),
}
_COPY = Rule(Operation.COPY_OBJECT, "s3:PutObject")
_PART_COPY = Rule(Operation.UPLOAD_PART_COPY, "s3:PutObject")


def list_rules() -> Iterator[tuple[str, str, str, Rule]]:
    """(place, sub-resource, method, rule) of every request that is routed, for what tells people of it."""
    for place, methods in (("/", _SERVICE_RULES), ("/bucket", _BUCKET_RULES), ("/bucket/key", _OBJECT_RULES)):
        for method, rule in methods.items():
            yield place, "", method, rule
    for place, table in (("/bucket", BUCKET_SUBRESOURCES), ("/bucket/key", OBJECT_SUBRESOURCES)):
        for subresource, methods in table.items():
            for method, rule in methods.items():
                yield place, subresource, method, rule
    yield "/bucket", "list-type=2", "GET", _LIST_V2
    yield "/bucket/key with x-amz-copy-source", "", "PUT", _COPY
    yield "/bucket/key with x-amz-copy-source", "uploadId", "PUT", _PART_COPY
    yield "/bucket or /bucket/key", "", "OPTIONS", Rule(Operation.PREFLIGHT, "")


def parse_query(query_string: bytes) -> dict[str, str]:
    """Parameters by name, decoded once; the first of a name counts. InvalidURI for what is not UTF-8 or too much.

    Those of a presigned signature are left to claims.py: decoding them twice would cost as much as all the rest here.
    """
    if not query_string:
        return {}
    pairs = query_string.split(b"&")
    if len(pairs) > QUERY_PARAMETERS_MAX:
        raise S3Error("InvalidURI", "Too many query parameters")
    query: dict[str, str] = {}
    try:
        for pair in pairs:
            if pair.startswith(_SIGNATURE):
                continue
            name, _, raw = pair.partition(b"=")
            query.setdefault(_decode_parameter(name), _decode_parameter(raw))
    except UnicodeDecodeError:
        raise S3Error("InvalidURI") from None
    query.pop("", None)
    return query


def parse_target(raw_path: bytes, host: str, domains: Sequence[str]) -> tuple[str, bytes]:
    """(bucket, object key) of a path-style or virtual-host request. InvalidURI, KeyTooLongError."""
    bucket = find_virtual_bucket(host, domains) if domains else ""
    path = raw_path[1:]
    if not bucket:
        head, _, path = path.partition(b"/")
        try:
            bucket = _decode_path(head).decode("ascii")
        except UnicodeDecodeError:
            raise S3Error("InvalidBucketName") from None
        if not bucket and path:
            raise S3Error("InvalidURI")
    object_key = _decode_path(path)
    if len(object_key) > OBJECT_KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", Size=str(len(object_key)), MaxSizeAllowed=str(OBJECT_KEY_BYTES_MAX))
    if not object_key.isascii():
        try:
            object_key.decode()
        except UnicodeDecodeError:
            raise S3Error("InvalidURI") from None
    return bucket, object_key


def find_virtual_bucket(host: str, domains: Sequence[str]) -> str:
    """The bucket that the Host header names under one of the configured domains, `` for path style."""
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    name = name.lower()
    for domain in domains:
        if name.endswith("." + domain):
            return name[: -len(domain) - 1]
    return ""


def route_request(
    method: str, bucket: str, object_key: bytes, query: dict[str, str], headers: Mapping[str, str]
) -> Route:
    """The one operation that this request is."""
    if method == "OPTIONS":
        return Route(Operation.PREFLIGHT, "", bucket, object_key)
    subresource = ""
    if object_key:
        if query:
            subresource = find_subresource(query, OBJECT_SUBRESOURCES)
        rule = _route_object(method, subresource, query, headers)
    elif bucket:
        if query:
            subresource = find_subresource(query, BUCKET_SUBRESOURCES)
        rule = _route_bucket(method, subresource, query)
    else:
        rule = _SERVICE_RULES.get(method, METHOD_NOT_ALLOWED)
    return Route(rule.operation, rule.permission, bucket, object_key, subresource)


def add_hoisted_headers(headers: dict[str, str], query: dict[str, str]) -> None:
    """Some presigners (the JavaScript SDK) move `x-amz-*` headers into the query; there they mean the same.

    Checksums excepted: those of a presigned URL were made before there was a body.
    """
    for name, text in query.items():
        if name.startswith(_HOISTED) and "checksum" not in name:
            headers.setdefault(name, text)


def _route_object(method: str, subresource: str, query: dict[str, str], headers: Mapping[str, str]) -> Rule:
    if subresource:
        rule = OBJECT_SUBRESOURCES.get(subresource, {}).get(method, METHOD_NOT_ALLOWED)
        if rule.operation is Operation.UPLOAD_PART and headers.get(_COPY_SOURCE):
            return _PART_COPY
        return rule
    if method == "PUT":
        if "partNumber" in query:
            raise S3Error("InvalidArgument", "A part number needs an uploadId", ArgumentName="uploadId")
        if headers.get(_COPY_SOURCE):
            return _COPY
    return _OBJECT_RULES.get(method, METHOD_NOT_ALLOWED)


def _route_bucket(method: str, subresource: str, query: dict[str, str]) -> Rule:
    if subresource:
        return BUCKET_SUBRESOURCES.get(subresource, {}).get(method, METHOD_NOT_ALLOWED)
    if method == "GET" and query.get("list-type", "1") != "1":
        if query["list-type"] != "2":
            raise S3Error(
                "InvalidArgument",
                "Invalid List Type specified in Request",
                ArgumentName="list-type",
                ArgumentValue=query["list-type"],
            )
        return _LIST_V2
    return _BUCKET_RULES.get(method, METHOD_NOT_ALLOWED)


def _decode_parameter(raw: bytes) -> str:
    """Like a form: a plus is a space."""
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    return raw.decode()


def _decode_path(raw: bytes) -> bytes:
    if b"%" not in raw:
        return raw
    if _BROKEN_ESCAPE.search(raw):
        raise S3Error("InvalidURI")
    return unquote_to_bytes(raw)
