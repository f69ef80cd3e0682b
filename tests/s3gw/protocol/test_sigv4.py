"""SigV4 against botocore's signers and the vectors of the S3 documentation."""

from __future__ import annotations

import hmac
import string
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.claims import PayloadMode, RawRequest, join_headers
from s3gw.protocol.errors import S3Error
from s3gw.protocol.sigv4 import (
    SigningKeys,
    derive_signing_key,
    encode_path,
    encode_query,
    string_to_sign,
    verify_claim,
)
from tests.s3gw.protocol.signing import (
    ACCESS_KEY_ID,
    HOST,
    SECRET_ACCESS_KEY,
    claim_of,
    presign,
    sign_by_header,
    verify,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
DOCUMENTED_HOST = b"examplebucket.s3.amazonaws.com"
KEY_TEXT = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() or "\n" not in text)


def documented(method: str, target: str, signed: str, signature: str, payload: str, **headers: str) -> RawRequest:
    """A header-signed request of the documentation, all of 2013-05-24."""
    path, _, query = target.partition("?")
    credential = f"{ACCESS_KEY_ID}/20130524/us-east-1/s3/aws4_request"
    pairs = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    pairs[b"authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed},Signature={signature}".encode()
    )
    pairs |= {
        b"x-amz-date": b"20130524T000000Z",
        b"x-amz-content-sha256": payload.encode(),
        b"host": DOCUMENTED_HOST,
    }
    return RawRequest(method, path.encode(), query.encode(), pairs, DOCUMENTED_HOST)


DOCUMENTED = {
    "get object": documented(
        "GET",
        "/test.txt",
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        EMPTY_SHA256,
        range="bytes=0-9",
    ),
    "put object": documented(
        "PUT",
        "/test$file.text",
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        date="Fri, 24 May 2013 00:00:00 GMT",
        x_amz_storage_class="REDUCED_REDUNDANCY",
    ),
    "get lifecycle": documented(
        "GET",
        "/?lifecycle",
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        EMPTY_SHA256,
    ),
    "list objects": documented(
        "GET",
        "/?max-keys=2&prefix=J",
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        EMPTY_SHA256,
    ),
    "presigned get": RawRequest(
        "GET",
        b"/test.txt",
        b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2F"
        b"aws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&"
        b"X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
        {b"host": DOCUMENTED_HOST},
        DOCUMENTED_HOST,
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_vectors_hold(name: str) -> None:
    """Each example of the S3 documentation verifies with the documented secret."""
    assert verify(DOCUMENTED[name]).claim.access_key_id == ACCESS_KEY_ID


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_vectors_fail_with_another_method(name: str) -> None:
    """The method is part of what is signed."""
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(DOCUMENTED[name]._replace(method="DELETE"))


@given(key=KEY_TEXT, value=KEY_TEXT, meta=st.text(string.ascii_letters + " ", max_size=20))
def test_header_signatures_of_botocore_hold(key: str, value: str, meta: str) -> None:
    """Any key, query value and metadata that botocore signs by header verifies, and no other secret does."""
    path = f"/bucket/{quote(key, safe='/~')}?prefix={quote(value, safe='~')}&list-type=2"
    request = sign_by_header("GET", path, {"x-amz-meta-a": f"a{meta}b"})
    verified = verify(request)
    assert not verified.path_as_sent
    assert verified.claim.payload_mode is PayloadMode.SIGNED
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(request, secret="another")


@given(key=KEY_TEXT)
def test_presigned_urls_of_botocore_hold(key: str) -> None:
    """Any key that botocore presigns verifies; the payload is unsigned by default."""
    request = presign("PUT", f"/bucket/{quote(key, safe='/~')}", {"Content-Type": "text/plain"})
    claim = verify(request).claim
    assert (claim.payload_mode, claim.expires_s) == (PayloadMode.UNSIGNED, 3600)
    assert claim.signed_headers == ("content-type", "host")


def test_presigned_request_may_carry_a_payload_digest() -> None:
    """A signed x-amz-content-sha256 on a presigned request is what the body is held to."""
    request = presign("PUT", "/b/k", {"x-amz-content-sha256": "a" * 64})
    assert b"x-amz-content-sha256" in request.headers
    claim = claim_of(request)
    assert (claim.payload_text, claim.payload_mode) == ("a" * 64, PayloadMode.SIGNED)


def test_presigned_payload_digest_hoisted_into_the_query_counts() -> None:
    """Some presigners put X-Amz-Content-Sha256 into the query."""
    request = presign("PUT", "/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD")
    assert verify(request).claim.payload_mode is PayloadMode.UNSIGNED


def test_path_signed_as_it_was_sent_holds_and_says_so() -> None:
    """A client that signs its own spelling of the path is accepted, with a mark for the log."""
    request = sign_by_header("GET", "/bucket/a(b)!+'c*")
    assert encode_path(request.raw_path) != request.raw_path
    assert verify(request).path_as_sent


@pytest.mark.parametrize("query", ["prefix=p&list-type=2", "acl", "prefix=a/b"])
def test_query_signed_as_it_was_sent_holds_and_says_so(query: str) -> None:
    """curl before 8 signs the query as it stands, unsorted and without the equals sign of a bare name."""
    request = sign_by_header("GET", "/b")
    claim = claim_of(request)
    rest = f"host:{HOST}\nx-amz-content-sha256:{claim.payload_text}\nx-amz-date:{claim.timestamp}\n"
    canonical = f"GET\n/b\n{query}\n{rest}\n{';'.join(claim.signed_headers)}\n{claim.payload_text}".encode()
    key = derive_signing_key(SECRET_ACCESS_KEY, claim.date, claim.region)
    signature = hmac.new(key, string_to_sign(claim, canonical).encode(), "sha256").hexdigest()
    signed = request._replace(query_string=query.encode())
    verified = verify_claim(signed, claim._replace(signature=signature), SECRET_ACCESS_KEY, claim.time_s, SigningKeys())
    assert verified.query_as_sent
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(signed._replace(query_string=query.encode() + b"&x=1"))


@pytest.mark.parametrize("signed", ["identity", "gzip", "gzip, deflate"])
def test_a_rewritten_accept_encoding_does_not_matter(signed: str) -> None:
    """Row 24: the Go SDKs sign it and proxies rewrite it; any other signed header has to arrive as it was sent."""
    request = sign_by_header("GET", "/b/k", {"accept-encoding": signed, "x-other": "1"})
    assert "accept-encoding" in claim_of(request).signed_headers
    for arrived in (b"gzip, br", b"", signed.encode()):
        verify(request._replace(headers={**request.headers, b"accept-encoding": arrived}))
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(request._replace(headers={**request.headers, b"accept-encoding": b"br", b"x-other": b"2"}))


@pytest.mark.parametrize("sent", ["/b//a/../c/./d//", "/b/%2e%2e/x", "//", "/b/a%20b"])
def test_paths_are_never_normalised(sent: str) -> None:
    """Dots and double slashes are characters of the key."""
    strict = encode_path(sent.encode())
    assert verify(sign_by_header("GET", strict.decode())).path_as_sent is False
    assert strict.count(b"/") == sent.count("/")


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        (b"b=2&a=1", b"a=1&b=2"),
        (b"a=2&a=1&a", b"a=&a=1&a=2"),
        (b"uploads", b"uploads="),
        (b"prefix=a+b&x=%7e%2f", b"prefix=a%20b&x=~%2F"),
        (b"a%2Bb=1&a=&&", b"a=&a%2Bb=1"),
        (b"k=v=w", b"k=v%3Dw"),
        (b"X-Amz-Signature=abc&z=%E2%82%AC", b"z=%E2%82%AC"),
    ],
)
def test_query_is_sorted_and_strictly_encoded(sent: bytes, canonical: bytes) -> None:
    """Names and values are decoded once, encoded strictly and sorted; the signature is left out."""
    assert encode_query(sent) == canonical


@given(st.binary(max_size=60))
def test_encodings_are_stable(raw: bytes) -> None:
    """Encoding what is already canonical changes nothing."""
    assert encode_path(encode_path(raw)) == encode_path(raw)
    assert encode_query(encode_query(raw)) == encode_query(raw)


_SPELLINGS = ["a", "b", "-", "~", "=", "&", "+", "%2F", "%2f", "%7E", "%41", "%7F", "%", "%3D", "/", "\n"]


@given(st.lists(st.sampled_from(_SPELLINGS), max_size=12).map("".join))
def test_short_cut_of_strict_queries(text: str) -> None:
    """A query that is spelled strictly is encoded as every other one: word by word, decoded once."""
    pairs = [piece.partition("=")[::2] for piece in text.split("&") if piece]
    encoded = sorted(
        tuple(quote_from_bytes(unquote_to_bytes(word.replace("+", " ")), safe="~") for word in pair) for pair in pairs
    )
    assert encode_query(text.encode()) == "&".join(f"{name}={value}" for name, value in encoded).encode()


def test_header_values_are_trimmed_and_collapsed() -> None:
    """Blanks around and inside a signed value do not matter, other changes do."""
    request = sign_by_header("GET", "/b/k", {"x-amz-meta-a": "one two"})
    for spelling, holds in ((b"  one   two ", True), (b"onetwo", False), (b"one two,x", False)):
        changed = request._replace(headers={**request.headers, b"x-amz-meta-a": spelling})
        if holds:
            verify(changed)
        else:
            with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
                verify(changed)


def test_repeated_headers_are_joined() -> None:
    """Values of a repeated header are signed joined by a comma."""
    assert join_headers([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]) == {b"a": b"1,3", b"b": b"2"}


def test_host_is_the_one_the_caller_says() -> None:
    """Behind a proxy the forwarded host is signed, not the Host header that arrives."""
    request = sign_by_header("GET", "/b/k")
    verify(request._replace(headers={**request.headers, b"host": b"inner:1"}))
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify(request._replace(host=b"inner:1"))


@pytest.mark.parametrize("sign", [sign_by_header, presign])
def test_every_amz_header_must_be_signed(sign: object) -> None:
    """A header that grants something cannot be added on the way; CloudFront's own is let through."""
    request = sign("PUT", "/b/k")  # type: ignore[operator]
    verify(request._replace(headers={**request.headers, b"x-amz-cf-id": b"1"}))
    with pytest.raises(S3Error, match="AccessDenied") as refused:
        verify(request._replace(headers={**request.headers, b"x-amz-acl": b"public-read"}))
    assert refused.value.extra["HeadersNotSigned"] == "x-amz-acl"


def test_host_must_be_signed() -> None:
    """A signature that leaves the host out could be replayed elsewhere."""
    request = presign("GET", "/b/k")
    query = request.query_string.replace(b"SignedHeaders=host", b"SignedHeaders=date")
    with pytest.raises(S3Error) as refused:
        verify(request._replace(query_string=query))
    assert (refused.value.code, refused.value.extra["HeadersNotSigned"]) == ("AccessDenied", "host")


def test_mismatch_tells_what_was_signed() -> None:
    """The refusal carries both intermediate texts, and neither secret nor right signature."""
    request = sign_by_header("GET", "/b/k?x=1", secret="wrong")
    with pytest.raises(S3Error) as refused:
        verify(request)
    extra = refused.value.extra
    assert extra["CanonicalRequest"].startswith("GET\n/b/k\nx=1\nhost:")
    assert extra["StringToSign"].startswith("AWS4-HMAC-SHA256\n")
    assert bytes.fromhex(extra["CanonicalRequestBytes"]).decode() == extra["CanonicalRequest"]
    assert SECRET_ACCESS_KEY not in str(extra)


@pytest.mark.parametrize(
    ("age_s", "code"), [(899, None), (901, "RequestTimeTooSkewed"), (-901, "RequestTimeTooSkewed")]
)
def test_clock_skew_of_fifteen_minutes(age_s: float, code: str | None) -> None:
    """Header signatures hold 15 minutes to either side."""
    request = sign_by_header("GET", "/b/k")
    if code is None:
        verify(request, age_s=age_s)
        return
    with pytest.raises(S3Error) as refused:
        verify(request, age_s=age_s)
    assert refused.value.code == code
    assert refused.value.extra["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize(
    ("age_s", "message"), [(3600, None), (3601, "Request has expired"), (-901, "Request is not yet valid")]
)
def test_presigned_expiry(age_s: float, message: str | None) -> None:
    """A presigned request holds for the time it says, and not before it was made."""
    request = presign("GET", "/b/k", expires_s=3600)
    if message is None:
        verify(request, age_s=age_s)
        return
    with pytest.raises(S3Error) as refused:
        verify(request, age_s=age_s)
    assert (refused.value.code, refused.value.status, refused.value.message) == ("AccessDenied", 403, message)


def test_time_is_checked_before_the_signature() -> None:
    """An expired request says so whatever its signature is."""
    request = presign("GET", "/b/k", expires_s=1, secret="wrong")
    with pytest.raises(S3Error, match="Request has expired"):
        verify(request, age_s=10)


def test_signing_keys_are_bounded_and_follow_the_secret() -> None:
    """The cache never grows past its bound, and a changed secret is never answered with the old key."""
    keys = SigningKeys(count_max=3)
    first = keys.derive("id", "secret", "20250301", "r")
    assert keys.derive("id", "secret", "20250301", "r") is first
    assert keys.derive("id", "other", "20250301", "r") != first
    for day in range(10, 20):
        keys.derive("id", "secret", f"202503{day}", "r")
    assert len(keys) == 3


def test_verified_hides_its_key() -> None:
    """The signing key does not reach a log through repr."""
    verified = verify(sign_by_header("GET", "/b/k"))
    assert verified.signing_key.hex() not in repr(verified)
    assert repr(verified.signing_key) not in repr(verified)


@given(
    method=st.sampled_from(["GET", "PUT", "POST"]),
    raw_path=st.binary(max_size=40),
    query=st.binary(max_size=40),
    signature=st.text("0123456789abcdef", min_size=64, max_size=64),
)
def test_garbage_gives_a_refusal(method: str, raw_path: bytes, query: bytes, signature: str) -> None:
    """Whatever a signed request is changed into, the answer is a refusal by name."""
    request = sign_by_header("GET", "/b/k")
    claim = claim_of(request)._replace(signature=signature)
    changed = request._replace(method=method, raw_path=raw_path, query_string=query)
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        verify_claim(changed, claim, SECRET_ACCESS_KEY, claim.time_s, SigningKeys())
