"""Hostile HTTP against a running gateway: no 500, no stall, no lost connection, and honest clients are served on.

FROSTBYTE_FUZZ_EXAMPLES sets how many requests each test sends; the default keeps the file under 20 seconds.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import logging
import os
import re
import socket
import zlib
from collections.abc import Iterator
from typing import NamedTuple, cast
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3gw.protocol.checksums import encode_digest
from s3gw.protocol.claims import PayloadMode, RawRequest
from s3gw.protocol.subresources import SUBRESOURCE_NAMES
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.protocol.framing import frame_signed, frame_unsigned
from tests.s3gw.protocol.signing import verify
from tests.s3gw.raw import send, sign

EXAMPLES = int(os.environ.get("FROSTBYTE_FUZZ_EXAMPLES", "150"))
ANSWER_S = 15.0
"""within which a whole request must be answered"""
BROKEN_S = 0.05
"""how long one waits for an answer to what may be no whole request"""
BUCKET = "fuzz"
ANCHOR = "no request names this object, so no request can delete its bucket"

fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


class Request(NamedTuple):
    """Before it is signed; the path holds its query."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway over the real doors with a bucket, an object and an upload of one part."""
    with running_gateway() as running:
        s3 = running.client()
        s3.create_bucket(Bucket=BUCKET)
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"hello")
        s3.put_object(Bucket=BUCKET, Key=ANCHOR, Body=b"")
        yield running


@pytest.fixture
def upload_id(gateway: Gateway) -> str:
    """An open upload with a part."""
    s3 = gateway.client()
    upload = str(s3.create_multipart_upload(Bucket=BUCKET, Key="m")["UploadId"])
    s3.upload_part(Bucket=BUCKET, Key="m", UploadId=upload, PartNumber=1, Body=b"part")
    return upload


@pytest.fixture
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails when the gateway met something that it had not expected."""
    caplog.set_level(logging.ERROR)
    yield
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# ------------------------------------------------------------------ what is sent

PLAIN_PARAMETERS = (
    *("uploadId", "partNumber", "versionId", "prefix", "marker", "delimiter", "max-keys", "list-type", "x-id", "%ff"),
    *("continuation-token", "encoding-type", "max-uploads", "max-parts", "key-marker", "upload-id-marker", "a+b", ""),
    *("part-number-marker", "response-content-type", "start-after", "max-buckets", "bucket-region"),
)
names = st.sampled_from(sorted(SUBRESOURCE_NAMES)) | st.sampled_from(PLAIN_PARAMETERS)
awkward_text = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["0", "1", "-1", "99999", "1" * 40, "null", "/", "//", "..", "\x00", "\n", "\uffff", "url", "2"]),
)
keys = st.one_of(st.just("k"), st.just("m"), st.just(""), awkward_text, st.text(min_size=300, max_size=1100))
HEADERS = (
    *("Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Range", "Content-MD5", "Content-Type", "Expires"),
    *("Content-Encoding", "Expect", "Origin", "Connection", "x-amz-copy-source", "x-amz-copy-source-range"),
    *("x-amz-copy-source-if-match", "x-amz-metadata-directive", "x-amz-tagging", "x-amz-storage-class", "x-amz-acl"),
    *("x-amz-meta-a", "x-amz-checksum-crc32", "x-amz-checksum-sha256", "x-amz-checksum-algorithm", "x-amz-trailer"),
    *("x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-sdk-checksum-algorithm", "x-amz-decoded-content-length"),
    *("x-amz-expected-bucket-owner", "x-amz-mp-object-size", "x-amz-server-side-encryption"),
    *("x-amz-object-ownership", "x-amz-website-redirect-location", "x-amz-security-token"),
    *(f"x-amz-server-side-encryption-{name}" for name in ("aws-kms-key-id", "context", "bucket-key-enabled")),
    *(f"x-amz-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")),
    *(f"x-amz-copy-source-server-side-encryption-customer-{name}" for name in ("algorithm", "key", "key-md5")),
)
VALUES = (
    *("bytes=0-0", "bytes=-1", "bytes=9-", "bytes=0-1,2-3", f"/{BUCKET}/k", f"{BUCKET}/%ff", "*", '"x"', "REPLACE"),
    *("CRC32", "SHA256", "AAAAAA==", "COMPOSITE", "aws-chunked", "close", "100-continue", "=?UTF-8?B?/w==?=", "-1"),
    *("Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01 Jan 99999 00:00:00 GMT", "x-amz-checksum-crc32", "a=1&a=2", ""),
    *(
        "AES256",
        "aws:kms",
        "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=",
        "kO0O8+MeIdwqJ2yKvmLMzg==",
        "alias/x",
        "e30=",
    ),
    *(f"bytes={' ' * 9000}-{' ' * 9000}x", f'a{" " * 20_000}"', "=?" * 5000),
)
header_values = st.sampled_from(VALUES) | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@st.composite
def signed_requests(draw: st.DrawFn) -> Request:
    """Anything that a client with a valid key may ask."""
    method = draw(st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"]))
    bucket = draw(st.sampled_from([BUCKET, BUCKET, BUCKET, "", "No Bucket", "absent"]))
    path = f"/{quote(bucket)}" + (f"/{quote(draw(keys), safe='/~')}" if bucket else "")
    pairs = draw(st.lists(st.tuples(names, awkward_text), max_size=3))
    query = "&".join(f"{name}={quote(text, safe='~')}" for name, text in sorted(pairs))
    headers = dict(draw(st.lists(st.tuples(st.sampled_from(HEADERS), header_values.map(str.strip)), max_size=4)))
    body = draw(st.one_of(st.just(b""), st.binary(max_size=60)))
    return Request(method, f"{path}?{query}" if query else path, headers, body)


WORDS = (
    *(b"\r\n", b"\n", b"\x00", b"%", b"%zz", b"\xff", b" ", b":", b"Content-Length: 3\r\n", b"0\r\n\r\n", b"\r\n\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Host: a\r\n", b"HTTP/1.0", b"?acl&", b"&#1;"),
    *(b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"GET / HTTP/1.1\r\n", b"x-amz-date: \r\n", b"<", b"<!DOCTYPE a []>"),
)
EDITS = ("flip", "cut", "insert", "double", "end")
Edit = tuple[str, float, bytes]
edits = st.lists(st.tuples(st.sampled_from(EDITS), st.floats(0, 1), st.sampled_from(WORDS)), min_size=1, max_size=4)


PLAINTEXT = b"the plaintext of a framed body, whole and in order"
FRAMED_MODES = (
    PayloadMode.STREAMING_SIGNED,
    PayloadMode.STREAMING_SIGNED_TRAILER,
    PayloadMode.STREAMING_UNSIGNED_TRAILER,
)


def mutate(data: bytes, changes: list[Edit]) -> bytes:
    """Some bytes changed, cut out, put in or said twice; `end` leaves out the rest."""
    for kind, where, word in changes:
        at = int(where * len(data))
        match kind:
            case "flip":
                data = data[:at] + bytes([data[at] ^ (1 << len(word) % 8)]) + data[at + 1 :] if at < len(data) else data
            case "cut":
                data = data[:at] + data[at + len(word) :]
            case "insert":
                data = data[:at] + word + data[at:]
            case "double":
                data = data[:at] + data[max(0, at - 40) :]
            case "end":
                data = data[:at]
    return data


# ------------------------------------------------------------------ sending, and what must hold


def render(gateway: Gateway, request: Request) -> bytes:
    """The request as it stands on the wire, signed."""
    return write(gateway, request, sign(gateway, request.method, request.path, request.body, request.headers))


def write(gateway: Gateway, request: Request, headers: dict[str, str]) -> bytes:
    """The request with these headers."""
    headers = {"Host": f"{gateway.host}:{gateway.port}", "Content-Length": str(len(request.body))} | headers
    lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{lines}\r\n".encode() + request.body


def receive(connection: socket.socket, method: str, within_s: float) -> http.client.HTTPResponse | None:
    """One whole response (its body is in `data`), None when none came."""
    connection.settimeout(within_s)
    try:
        if not connection.recv(1, socket.MSG_PEEK):
            return None
        connection.settimeout(ANSWER_S)
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        response.fp = cast(io.BufferedReader, io.BytesIO(response.read()))
        return response
    except (TimeoutError, ConnectionError):
        return None


def judge(response: http.client.HTTPResponse) -> None:
    """No failure of ours, and every refusal with a body is a document with a code."""
    body = response.fp.read() if response.fp else b""
    assert response.status not in (500, 502, 504), (response.status, body)
    if response.status >= 400 and body:
        assert re.search(rb"<Code>\w[\w.]*</Code>", body), body


def exchange(gateway: Gateway, data: bytes, method: str, within_s: float) -> bool:
    """Send bytes and judge the answer; a connection that stays open then serves an honest request. Whether answered."""
    with socket.create_connection((gateway.host, gateway.port), timeout=ANSWER_S) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        response = receive(connection, method, within_s)
        if response is None:
            return False
        judge(response)
        if within_s == ANSWER_S and not response.will_close:
            connection.sendall(render(gateway, Request("GET", f"/{BUCKET}/k", {})))
            after = receive(connection, "GET", ANSWER_S)
            assert after is not None and after.status in (200, 404), "the connection was left in disorder"
        return True


def is_served(gateway: Gateway) -> bool:
    """Whether an honest client still is."""
    return gateway.client().list_objects_v2(Bucket=BUCKET)["ResponseMetadata"]["HTTPStatusCode"] == 200


@fuzz
@given(request=signed_requests())
def test_whatever_a_known_client_asks(gateway: Gateway, quiet_log: None, request: Request) -> None:
    """Any method, name, parameters and headers: an answer, and a connection in order."""
    assert exchange(gateway, render(gateway, request), request.method, ANSWER_S)


@fuzz
@given(
    request=st.sampled_from(
        [
            Request("PUT", f"/{BUCKET}/p", {"x-amz-meta-a": "1"}, b"0123456789"),
            Request("GET", f"/{BUCKET}/k", {"Range": "bytes=1-2"}),
            Request("GET", f"/{BUCKET}?list-type=2&prefix=a", {}),
            Request("PUT", f"/{BUCKET}/c", {"x-amz-copy-source": f"/{BUCKET}/k"}),
            Request("POST", f"/{BUCKET}/n?uploads=", {}),
        ]
    ),
    changes=edits,
)
def test_broken_requests(gateway: Gateway, quiet_log: None, request: Request, changes: list[Edit]) -> None:
    """A signed request with bytes changed on the way is refused, or its rest is waited for."""
    exchange(gateway, mutate(render(gateway, request), changes), request.method, BROKEN_S)


@settings(fuzz, max_examples=EXAMPLES // 4)
@given(data=st.binary(max_size=400))
def test_noise(gateway: Gateway, quiet_log: None, data: bytes) -> None:
    """Bytes that were never HTTP."""
    exchange(gateway, data, "GET", BROKEN_S)


DELETE = b"<Delete><Quiet>false</Quiet><Object><Key>z</Key><VersionId>null</VersionId></Object></Delete>"
PART = b"<Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>"
DOCUMENTS = {
    f"/{BUCKET}?delete=": DELETE,
    f"/{BUCKET}/m?uploadId=UPLOAD": b"<CompleteMultipartUpload>" + PART + b"</CompleteMultipartUpload>",
}


@fuzz
@given(path=st.sampled_from(sorted(DOCUMENTS)), changes=edits)
def test_broken_documents(gateway: Gateway, quiet_log: None, upload_id: str, path: str, changes: list[Edit]) -> None:
    """XML with bytes changed before it was signed: an answer, and a connection in order."""
    body = mutate(DOCUMENTS[path], changes)
    digest = base64.b64encode(hashlib.md5(body).digest()).decode()
    request = Request("POST", path.replace("UPLOAD", upload_id), {"Content-MD5": digest}, body)
    assert exchange(gateway, render(gateway, request), "POST", ANSWER_S)


@fuzz
@given(mode=st.sampled_from(FRAMED_MODES), changes=st.just([]) | edits)
def test_broken_framing(gateway: Gateway, quiet_log: None, mode: PayloadMode, changes: list[Edit]) -> None:
    """An aws-chunked body with bytes changed is refused, or is still the same object: never another one."""
    sent = {"x-amz-decoded-content-length": str(len(PLAINTEXT)), "x-amz-trailer": "x-amz-checksum-crc32"}
    if mode is PayloadMode.STREAMING_SIGNED:
        del sent["x-amz-trailer"]
    path = f"/{BUCKET}/framed"
    headers = sign(gateway, "PUT", path, b"", sent, payload=mode.value)
    framed = mutate(frame(gateway, path, headers, mode), changes)
    assert exchange(gateway, write(gateway, Request("PUT", path, {}, framed), headers), "PUT", ANSWER_S)
    found = send(gateway, "GET", path)
    assert found.status == 404 or (found.status, found.body) == (200, PLAINTEXT)


def frame(gateway: Gateway, path: str, headers: dict[str, str], mode: PayloadMode) -> bytes:
    """The body as an honest client frames it."""
    pieces = [PLAINTEXT[:30], PLAINTEXT[30:]]
    crc = ("x-amz-checksum-crc32", encode_digest(zlib.crc32(PLAINTEXT).to_bytes(4, "big")))
    if mode is PayloadMode.STREAMING_UNSIGNED_TRAILER:
        return frame_unsigned(pieces, f"{crc[0]}:{crc[1]}\r\n".encode())
    host = f"{gateway.host}:{gateway.port}".encode()
    lines = {name.lower().encode(): text.encode() for name, text in headers.items()} | {b"host": host}
    verified = verify(RawRequest("PUT", path.encode(), b"", lines, host), "secret-of-alice")
    return frame_signed(verified, pieces, crc if mode is PayloadMode.STREAMING_SIGNED_TRAILER else None)


def test_honest_clients_are_served_on(gateway: Gateway) -> None:
    """After all of the above."""
    assert is_served(gateway)
