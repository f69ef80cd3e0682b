"""Presigned requests like an earlier one hold where sigv4.py says that they do, and nowhere else."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from s3gw.protocol.claims import RawRequest
from s3gw.protocol.errors import S3Error
from s3gw.protocol.presigned import PresignedRequests
from s3gw.protocol.sigv4 import SKEW_S_MAX, SigningKeys, verify_claim
from tests.s3gw.protocol.signing import SECRET_ACCESS_KEY, claim_of, presign

EXPIRES_S = 3600


def remembering(request: RawRequest, count_max: int = 4) -> PresignedRequests:
    """A memory that has seen this request verified."""
    known, claim = PresignedRequests(count_max), claim_of(request)
    verified = verify_claim(request, claim, SECRET_ACCESS_KEY, claim.time_s, SigningKeys())
    known.remember(request, verified, SECRET_ACCESS_KEY)
    return known


def holds(known: PresignedRequests, request: RawRequest, age_s: float = 0.0) -> bool | None:
    """None: it is not known."""
    found = known.find(request.method, request.query_string, request.host, request.headers)
    if found is None:
        return None
    terms, signature = found
    return terms.hold(request.raw_path, signature, claim_of(request).time_s + age_s)


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_another_path_needs_its_own_signature(first: str, second: str) -> None:
    """Whatever is in either; the signature of one is none for another."""
    one, two = (presign("GET", f"/b/{quote(key, safe='/~')}", expires_s=EXPIRES_S) for key in (first, second))
    known = remembering(one)
    assume(one.query_string.rpartition(b"&")[0] == two.query_string.rpartition(b"&")[0])  # of the same second
    assert holds(known, one) and holds(known, two)
    assert holds(known, one._replace(raw_path=two.raw_path)) == (one.raw_path == two.raw_path)
    forged = one.query_string[:-1] + (b"1" if one.query_string.endswith(b"0") else b"0")
    assert holds(known, one._replace(query_string=forged)) is False


@pytest.mark.parametrize("age_s", [-SKEW_S_MAX - 1, -SKEW_S_MAX, 0, EXPIRES_S, EXPIRES_S + 1])
def test_it_holds_for_as_long_as_it_was_signed_for(age_s: float) -> None:
    """To the second, as at the first time."""
    request = presign("GET", "/b/k", expires_s=EXPIRES_S)
    claim = claim_of(request)
    try:
        verify_claim(request, claim, SECRET_ACCESS_KEY, claim.time_s + age_s, SigningKeys())
        expected = True
    except S3Error:
        expected = False
    assert holds(remembering(request), request, age_s) is expected


def test_what_else_differs_is_not_known() -> None:
    """Method, host, parameters, and headers that would have had to be signed."""
    request = presign("GET", "/b/k")
    known = remembering(request)
    assert holds(known, request)
    for other in (
        request._replace(method="HEAD"),
        request._replace(host=b"other.example"),
        request._replace(query_string=request.query_string.replace(b"Expires=", b"Expires=1")),
        request._replace(query_string=b"versionId=null&" + request.query_string),
        request._replace(headers={**request.headers, b"x-amz-acl": b"public-read"}),
        request._replace(headers={**request.headers, b"authorization": b"AWS4-HMAC-SHA256 x"}),
        request._replace(query_string=b""),
    ):
        assert holds(known, other) is None
    tail = request._replace(query_string=request.query_string + b"&versionId=null")
    assert not holds(known, tail)


@pytest.mark.parametrize(
    "request_",
    [
        presign("PUT", "/b/k", {"Content-Type": "text/plain"}),
        presign("PUT", "/b/k", {"x-amz-content-sha256": "a" * 64}),
        presign("GET", "/b/k?x-amz-server-side-encryption-customer-key=secret"),
    ],
    ids=["a signed header", "a signed payload", "a header hoisted into the query"],
)
def test_what_is_no_example(request_: RawRequest) -> None:
    """It is verified each time."""
    assert len(remembering(request_)) == 0


def test_the_memory_is_bounded() -> None:
    """The first goes first."""
    known, requests = PresignedRequests(2), [presign("GET", "/b/k", expires_s=expires_s) for expires_s in (10, 20, 30)]
    for request in requests:
        claim = claim_of(request)
        verified = verify_claim(request, claim, SECRET_ACCESS_KEY, claim.time_s, SigningKeys())
        known.remember(request, verified, SECRET_ACCESS_KEY)
    assert len(known) == 2
    assert [holds(known, request) for request in requests] == [None, True, True]


def test_nothing_secret_is_shown() -> None:
    """By terms in a log."""
    request = presign("GET", "/b/k")
    found = remembering(request).find("GET", request.query_string, request.host, request.headers)
    assert found is not None and SECRET_ACCESS_KEY not in repr(found)
