"""Heads that are known: what is found in them is what the ordinary way finds; what was not seen before is nobody's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.known_heads import KnownHead, KnownHeads
from s3gw.plain_head import HEAD_BYTES_MAX, parse_plain_head, parse_plain_write
from s3gw.protocol.claims import RawRequest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.presigned import PresignedRequests, PresignedTerms
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX, parse_target
from s3gw.protocol.sigv4 import SigningKeys, encode_path, verify_claim
from tests.s3gw.protocol.signing import SECRET_ACCESS_KEY, claim_of, presign

BODY = b"12\r\n\r\n6789"
EXPIRES_S = 3600
PATHS = st.text("ab09./-_~%+é 'A", min_size=1, max_size=40).map(lambda text: f"/{text}".encode())
HEADERS = st.lists(st.sampled_from([b"User-Agent: a/1", b"Accept: */*", b"Range: bytes=0-1"]), max_size=2, unique=True)


def render(request: RawRequest, lines: list[bytes], body: bytes = b"") -> bytes:
    """A whole request as clients send it."""
    length = [b"Content-Length: %d" % len(body)] if body else []
    head = b"%b %b?%b HTTP/1.1" % (request.method.encode(), request.raw_path, request.query_string)
    return b"\r\n".join([head, b"Host: " + request.host, *length, *lines, b"", body])


def terms_of(request: RawRequest) -> PresignedTerms:
    """As they are remembered once it was verified."""
    known, claim = PresignedRequests(), claim_of(request)
    known.remember(
        request, verify_claim(request, claim, SECRET_ACCESS_KEY, claim.time_s, SigningKeys()), SECRET_ACCESS_KEY
    )
    found = known.find(request.method, request.query_string, request.host, request.headers)
    assert found is not None
    return found[0]


def knowing(request: RawRequest, lines: list[bytes], body: bytes = b"") -> KnownHeads:
    """A memory that has seen this request."""
    heads = KnownHeads()
    heads.remember(render(request, lines, body), KnownHead(terms_of(request), {}, len(body)))
    return heads


def path_of(request: RawRequest, path: bytes) -> RawRequest:
    """The same request for another path, signed for the first one."""
    return request._replace(raw_path=path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
@given(PATHS, HEADERS)
def test_what_is_found_is_what_the_ordinary_way_finds(method: str, path: bytes, lines: list[bytes]) -> None:
    """Whatever the path; one that is spelled otherwise than it is signed is not taken."""
    body = BODY if method == "PUT" else b""
    first = presign(method, "/bucket/first", expires_s=EXPIRES_S)
    heads, asked = knowing(first, lines, body), path_of(first, path)
    data = render(asked, lines, body)
    known = heads.find(data)
    if known is None:
        return
    if method == "PUT":
        write = parse_plain_write(data, len(body))
        # A Range is no header of a plain PUT, and so of none that is remembered.
        assert write is None or (write.target, write.body) == (b"%b?%b" % (path, asked.query_string), body)
        assert data[known.body_at :] == body
    else:
        head = parse_plain_head(data)
        assert head is not None and head[:2] == (method, b"%b?%b" % (path, asked.query_string))
        assert known.body_at == len(data)
    assert known.path == path == encode_path(path) and known.method == method.encode()
    assert parse_target(path, asked.host.decode(), ()) == (known.bucket_name.decode(), known.object_key)
    assert known.signature == asked.query_string.rpartition(b"=")[2]


@given(st.text("ab09./-_~A", min_size=1, max_size=40))
def test_plain_keys_are_found(object_key: str) -> None:
    """And their signatures are their own."""
    first, second = (presign("GET", f"/bucket/{key}", expires_s=EXPIRES_S) for key in ("first", object_key))
    known = knowing(first, []).find(render(second, []))
    if first.query_string.rpartition(b"&")[0] != second.query_string.rpartition(b"&")[0]:
        assert known is None  # not of the same second
        return
    assert known is not None
    time_s = claim_of(second).time_s
    assert known.head.terms.hold_canonical(known.path, known.signature, time_s)
    assert not known.head.terms.hold_canonical(known.path + b"x", known.signature, time_s)
    with pytest.raises(S3Error):
        verify_claim(path_of(second, known.path + b"x"), claim_of(second), SECRET_ACCESS_KEY, time_s, SigningKeys())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"PUT ", b"GET "),
        (b"/bucket/", b"/Bucket/"),
        (b"/bucket/", b"/-/"),
        (b"/bucket/key", b"/bucket/"),
        (b"/bucket/key", b"/bucket/k%20"),
        (b"/bucket/key", b"/bucket/" + b"k" * (OBJECT_KEY_BYTES_MAX + 1)),
        (b"X-Amz-Expires", b"x-id=PutObject&X-Amz-Expires"),
        (b"X-Amz-Signature=", b"X-Amz-Signature=0"),
        (b"Host: ", b"Host:  "),
        (b"Host: ", b"host: "),
        (b"Content-Length: 10", b"Content-Length: 11"),
        (b"\r\n\r\n12", b"\r\nX-Amz-Acl: public-read\r\n\r\n12"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"6789", b"6789G"),
    ],
)
def test_what_differs_elsewhere_is_not_known(old: bytes, new: bytes) -> None:
    """Neither is what has more behind it."""
    request = presign("PUT", "/bucket/key", expires_s=EXPIRES_S)
    heads, data = knowing(request, [], BODY), render(request, [], BODY)
    assert heads.find(data) is not None and old in data
    assert heads.find(data.replace(old, new, 1)) is None


def test_a_head_that_has_not_all_come() -> None:
    """Is not known, wherever it was cut; of the body nothing need be there."""
    request = presign("PUT", "/bucket/key", expires_s=EXPIRES_S)
    heads, data = knowing(request, [], BODY), render(request, [], BODY)
    body_at = len(data) - len(BODY)
    for end in range(len(data) + 1):
        assert (heads.find(data[:end]) is not None) == (end >= body_at)


def test_what_is_remembered_is_bounded() -> None:
    """The oldest goes, and a head that is too long or of another kind is none."""
    request = presign("GET", "/bucket/key", expires_s=EXPIRES_S)
    heads, terms = KnownHeads(2), terms_of(request)
    agents = [[b"User-Agent: %d" % number] for number in range(3)]
    for lines in agents:
        heads.remember(render(request, lines), KnownHead(terms, {}, 0))
    assert [heads.find(render(request, lines)) is not None for lines in agents] == [False, True, True]
    for strange in (
        render(request, [b"Accept: " + b"a" * HEAD_BYTES_MAX]),
        render(request._replace(method="POST"), []),
    ):
        heads.remember(strange, KnownHead(terms, {}, 0))
        assert heads.find(strange) is None and len(heads) == 2
