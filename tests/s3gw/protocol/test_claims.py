"""What is read out of the Authorization header and the presigned query, and how AWS words each refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.claims import PayloadMode, RawRequest, parse_claim, parse_payload_mode
from s3gw.protocol.errors import S3Error
from tests.s3gw.protocol.signing import ACCESS_KEY_ID, claim_of, presign, sign_by_header

HEADER = sign_by_header("GET", "/b/k")
PRESIGNED = presign("GET", "/b/k")
DATE = claim_of(HEADER).date


def refusal(request: RawRequest, region: str | None = "us-east-1") -> S3Error:
    """The refusal that parsing a request raises."""
    with pytest.raises(S3Error) as refused:
        parse_claim(request, region)
    return refused.value


def with_header(name: bytes, value: bytes | None, request: RawRequest = HEADER) -> RawRequest:
    """The request with one header replaced, or removed."""
    headers = {**request.headers, name: value or b""}
    if value is None:
        del headers[name]
    return request._replace(headers=headers)


def with_authorization(old: str, new: str) -> RawRequest:
    """The header-signed request with a piece of its Authorization replaced."""
    text = HEADER.headers[b"authorization"].decode()
    assert old in text
    return with_header(b"authorization", text.replace(old, new, 1).encode())


def with_parameter(name: str, value: str | None) -> RawRequest:
    """The presigned request with one parameter replaced, or removed."""
    pieces = [piece for piece in PRESIGNED.query_string.decode().split("&") if not piece.startswith(f"{name}=")]
    assert len(pieces) == 5
    if value is not None:
        pieces.append(f"{name}={value}")
    return PRESIGNED._replace(query_string="&".join(pieces).encode())


def test_anonymous_request_makes_no_claim() -> None:
    """Without header and query there is nothing to verify, whatever other parameters say."""
    for query in (b"", b"list-type=2", b"prefix=X-Amz-Algorithm", b"Signature=1"):
        assert parse_claim(RawRequest("GET", b"/b", query, {b"host": b"h"}, b"h"), "us-east-1") is None


def test_header_claim_is_read_whole() -> None:
    """Every field of a header signature."""
    claim = claim_of(HEADER)
    assert claim.access_key_id == ACCESS_KEY_ID
    assert claim.region == "us-east-1"
    assert claim.scope == f"{DATE}/us-east-1/s3/aws4_request"
    assert claim.signed_headers == ("host", "x-amz-content-sha256", "x-amz-date")
    assert claim.expires_s is None


def test_spaces_after_commas_are_optional() -> None:
    """Both spellings of the Authorization header occur."""
    text = HEADER.headers[b"authorization"].decode()
    assert ", " in text
    assert claim_of(with_header(b"authorization", text.replace(", ", ",").encode())) == claim_of(HEADER)


def test_access_key_id_may_hold_slashes() -> None:
    """Only the last four words of the credential are fixed."""
    assert claim_of(with_authorization(ACCESS_KEY_ID, "team/a/key")).access_key_id == "team/a/key"


def test_any_region_where_none_is_set() -> None:
    """A gateway without a region accepts the client's."""
    assert claim_of(with_authorization("us-east-1", "eu-west-3"), region=None).region == "eu-west-3"


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("us-east-1", "eu-west-3", "the region 'eu-west-3' is wrong; expecting 'us-east-1'"),
        ("/s3/", "/ec2/", 'incorrect service "ec2"'),
        ("aws4_request", "aws3_request", 'incorrect terminal "aws3_request"'),
        (f"/{DATE}/", "/20150101/", 'Invalid credential date "20150101"'),
        (f"/{DATE}/", "/today/", "incorrect date format"),
        (ACCESS_KEY_ID, "", "Credential is mal-formed"),
        ("Credential=", "Credentials=", "Credential is missing"),
        ("SignedHeaders=", "Signed=", "SignedHeaders is missing"),
        ("Signature=", "Signature=xyz", "64 hexadecimal digits"),
        ("host;", "Host;", "lower-case header names"),
        ("host;", "host;;", "lower-case header names"),
        ("host;", "a;" * 200 + "host;", "lower-case header names"),
        (" Credential", " Credential=a, Credential", "Name=Value"),
        (" Credential", " x, Credential", "Name=Value"),
    ],
)
def test_malformed_authorization_headers(old: str, new: str, part: str) -> None:
    """Each fault of the header is named in AWS's words."""
    refused = refusal(with_authorization(old, new))
    assert (refused.code, refused.status) == ("AuthorizationHeaderMalformed", 400)
    assert part in refused.message


def test_wrong_region_tells_the_right_one() -> None:
    """Clients follow the Region element to the right endpoint."""
    assert refusal(with_authorization("us-east-1", "eu-west-3")).extra == {"Region": "us-east-1"}
    presigned = presign("GET", "/b/k", region="eu-west-3")
    assert refusal(presigned).extra == {"Region": "us-east-1"}


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("AWS AKID:c2lnbmF0dXJl", "InvalidRequest"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "InvalidRequest"),
        ("AWS4-HMAC-SHA1 Credential=a", "InvalidRequest"),
        ("Basic dXNlcjpwYXNz", "InvalidArgument"),
        ("Bearer token", "InvalidArgument"),
        ("", "InvalidArgument"),
    ],
)
def test_other_mechanisms_are_refused(authorization: str, code: str) -> None:
    """SigV2 and the ECDSA modes say what to use instead."""
    refused = refusal(with_header(b"authorization", authorization.encode()))
    assert refused.code == code
    assert ("Please use AWS4-HMAC-SHA256" in refused.message) is (code == "InvalidRequest")


def test_presigned_sigv2_is_refused() -> None:
    """The old presigned form says what to use instead."""
    query = b"AWSAccessKeyId=AKID&Expires=1&Signature=abc"
    assert "AWS4-HMAC-SHA256" in refusal(RawRequest("GET", b"/b/k", query, {}, b"h")).message


def test_two_mechanisms_at_once_are_refused() -> None:
    """A header and a presigned query together are ambiguous."""
    both = HEADER._replace(query_string=PRESIGNED.query_string)
    assert refusal(both).code == "InvalidArgument"


def test_session_tokens_are_refused() -> None:
    """No session tokens are issued here."""
    assert refusal(with_header(b"x-amz-security-token", b"t")).code == "InvalidToken"
    query = PRESIGNED.query_string + b"&X-Amz-Security-Token=t"
    assert refusal(PRESIGNED._replace(query_string=query)).code == "InvalidToken"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256", "only supports"),
        ("X-Amz-Algorithm", None, "requires the X-Amz-Algorithm"),
        ("X-Amz-Credential", None, "requires the X-Amz-Algorithm"),
        ("X-Amz-Date", None, "requires the X-Amz-Algorithm"),
        ("X-Amz-Expires", None, "requires the X-Amz-Algorithm"),
        ("X-Amz-SignedHeaders", "", "requires the X-Amz-Algorithm"),
        ("X-Amz-Signature", None, "requires the X-Amz-Algorithm"),
        ("X-Amz-Credential", "a%2Fb", "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed"),
        ("X-Amz-Date", "2025-01-01T00:00:00Z", "ISO8601"),
        ("X-Amz-Date", "20251332T000000Z", "ISO8601"),
        ("X-Amz-Date", "20150101T000000Z", "Invalid credential date"),
        ("X-Amz-Expires", "604801", "less than a week"),
        ("X-Amz-Expires", "1.5", "should be a number"),
        ("X-Amz-Expires", "٣", "should be a number"),
        ("X-Amz-Expires", "9" * 4000, "should be a number"),
        ("X-Amz-Signature", "A" * 64, "64 hexadecimal digits"),
    ],
)
def test_malformed_presigned_queries(name: str, value: str | None, part: str) -> None:
    """Each fault of the query is named in AWS's words."""
    refused = refusal(with_parameter(name, value))
    assert (refused.code, refused.status) == ("AuthorizationQueryParametersError", 400)
    assert part in refused.message


def test_longest_expiry_is_a_week() -> None:
    """604800 seconds are allowed."""
    assert claim_of(with_parameter("X-Amz-Expires", "604800")).expires_s == 604800


def test_first_of_repeated_parameters_counts() -> None:
    """A second X-Amz-Expires cannot lengthen a URL; it changes what is signed as well."""
    query = PRESIGNED.query_string + b"&X-Amz-Expires=1"
    assert claim_of(PRESIGNED._replace(query_string=query)).expires_s == 3600


def test_content_sha256_is_required_with_a_header_signature() -> None:
    """AWS answers InvalidRequest when it is missing."""
    refused = refusal(with_header(b"x-amz-content-sha256", None))
    assert (refused.code, refused.message) == (
        "InvalidRequest",
        "Missing required header for this request: x-amz-content-sha256",
    )


@pytest.mark.parametrize("mode", [mode for mode in PayloadMode if mode is not PayloadMode.SIGNED])
def test_payload_modes(mode: PayloadMode) -> None:
    """Each mode is known by the text of its header."""
    assert claim_of(with_header(b"x-amz-content-sha256", mode.value.encode())).payload_mode is mode


@pytest.mark.parametrize(
    "text", ["", "GIBBERISH", "a" * 63, "A" * 64, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "a" * 64 + "\n"]
)
def test_other_payload_modes_are_refused(text: str) -> None:
    """Anything else is an InvalidArgument that names the header."""
    with pytest.raises(S3Error) as refused:
        parse_payload_mode(text)
    assert refused.value.code == "InvalidArgument"
    assert refused.value.extra == {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": text}


@pytest.mark.parametrize(
    "date", ["Sat, 01 Mar 2025 12:00:00 GMT", "Sat, 01 Mar 2025 13:00:00 +0100", "Sat, 01 Mar 2025 12:00:00 -0000"]
)
def test_date_header_stands_in_for_amz_date(date: str) -> None:
    """Without x-amz-date the Date header is the time, in UTC."""
    request = with_header(b"x-amz-date", None, with_authorization(f"/{DATE}/", "/20250301/"))
    claim = claim_of(with_header(b"date", date.encode(), request))
    assert (claim.timestamp, claim.time_s) == ("20250301T120000Z", 1740830400.0)


@pytest.mark.parametrize("date", [None, b"", b"yesterday", b"20250301", b"\xff\xfe", b"Sat, 99 Mar 2025 12:00:00 GMT"])
def test_missing_or_unreadable_date_is_refused(date: bytes | None) -> None:
    """AWS answers AccessDenied when there is no time to hold the signature to."""
    request = with_header(b"x-amz-date", None)
    if date is not None:
        request = with_header(b"date", date, request)
    assert (refusal(request).code, "valid Date" in refusal(request).message) == ("AccessDenied", True)


@given(authorization=st.binary(max_size=200), date=st.binary(max_size=40), payload=st.binary(max_size=70))
def test_any_header_is_a_claim_or_a_refusal(authorization: bytes, date: bytes, payload: bytes) -> None:
    """Random headers never raise anything but S3Error."""
    for prefix in (b"", b"AWS4-HMAC-SHA256 ", b"AWS4-HMAC-SHA256 Credential=a/20250301/us-east-1/s3/aws4_request,"):
        headers = {b"authorization": prefix + authorization, b"date": date, b"x-amz-content-sha256": payload}
        with pytest.raises(S3Error):
            parse_claim(RawRequest("GET", b"/", b"", headers, b"h"), "us-east-1")


@given(
    st.lists(st.tuples(st.sampled_from(["Algorithm", "Credential", "Date", "Expires", "Signature", "X"]), st.text()))
)
def test_any_query_is_a_claim_or_a_refusal(pairs: list[tuple[str, str]]) -> None:
    """Random presigned queries never raise anything but S3Error."""
    query = "&".join(f"X-Amz-{name}={value}" for name, value in pairs).encode("utf-8", "surrogatepass")
    request = RawRequest("GET", b"/", b"X-Amz-Signature=0&" + query, {}, b"h")
    assert refusal(request).code in {"AuthorizationQueryParametersError", "InvalidToken"}


def test_a_request_shows_no_secret_of_its_own() -> None:
    """Neither a header nor the query is in its repr: a customer's key and a signature stand there."""
    headers = {b"authorization": b"AWS4-HMAC-SHA256 hidden", b"x-amz-server-side-encryption-customer-key": b"hidden"}
    request = RawRequest("GET", b"/b/k", b"X-Amz-Signature=hidden", headers, b"host")
    assert repr(request) == "RawRequest(GET b'/b/k')"
