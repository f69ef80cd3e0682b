"""CORS: documents come back, bad ones are refused in AWS's words, and the first rule that fits decides."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.cors import (
    DOCUMENT_BYTES_MAX,
    METHODS,
    REQUESTED_HEADERS_MAX,
    RULES_MAX,
    CorsRule,
    evaluate_cors,
    format_cors,
    format_grant,
    parse_cors,
    parse_requested_headers,
    plan_cross_origin,
    read_cors,
)
from s3gw.protocol.errors import S3Error
from storage.model import Bucket

WORDS = st.text(st.sampled_from("abAB01-.:/ "), min_size=1, max_size=12).map(str.strip).filter(bool)
PATTERNS = st.tuples(WORDS, st.sampled_from(["", "*"]), WORDS).map("".join) | st.just("*")
RULES = st.builds(
    CorsRule,
    st.lists(PATTERNS, min_size=1, max_size=3).map(tuple),
    st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=3).map(tuple),
    st.lists(PATTERNS, max_size=3).map(tuple),
    st.lists(WORDS, max_size=3).map(tuple),
    st.none() | st.integers(0, 2**31 - 1),
    st.none() | st.text(st.sampled_from("aé &<"), max_size=20),
)
GET_ANY = CorsRule(("*",), ("GET",))


def rule(inner: str = "", origin: str = "*", method: str = "GET") -> str:
    """One rule as XML."""
    return f"<CORSRule><AllowedOrigin>{origin}</AllowedOrigin><AllowedMethod>{method}</AllowedMethod>{inner}</CORSRule>"


def configuration(*rules: str) -> bytes:
    """A document of these rules."""
    return f"<CORSConfiguration>{''.join(rules)}</CORSConfiguration>".encode()


def bucket(*rules: CorsRule) -> Bucket:
    """A bucket with this configuration."""
    return Bucket(1, "b", "o", "r", 0, "k", settings={"cors": format_cors(rules)})


@given(st.lists(RULES, min_size=1, max_size=5).map(tuple))
def test_a_document_comes_back(rules: tuple[CorsRule, ...]) -> None:
    """What is formatted is read as the same rules."""
    assert parse_cors(format_cors(rules)) == rules == read_cors(format_cors(rules))


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "MalformedXML", ""),
        (configuration(), "MalformedXML", ""),
        (configuration("<Rule/>"), "MalformedXML", ""),
        (configuration("<CORSRule/>"), "MalformedXML", ""),
        (configuration(rule("<Surprise/>")), "MalformedXML", ""),
        (configuration(rule(origin="")), "MalformedXML", ""),
        (configuration(rule("<MaxAgeSeconds>soon</MaxAgeSeconds>")), "MalformedXML", ""),
        (configuration(rule("<MaxAgeSeconds>-1</MaxAgeSeconds>")), "MalformedXML", ""),
        (configuration(rule("<MaxAgeSeconds>²</MaxAgeSeconds>")), "MalformedXML", ""),
        (configuration(rule("<ID>a</ID><ID>b</ID>")), "MalformedXML", ""),
        (configuration(rule(f"<ID>{'i' * 256}</ID>")), "InvalidRequest", "255"),
        (configuration(rule(method="PATCH")), "InvalidRequest", "Unsupported method is PATCH"),
        (configuration(rule(method="get")), "InvalidRequest", "Unsupported method is get"),
        (configuration(rule(origin="*.a.*")), "InvalidRequest", 'AllowedOrigin "*.a.*" can not have more than one'),
        (configuration(rule("<AllowedHeader>a*b*</AllowedHeader>")), "InvalidRequest", "more than one wildcard"),
        (configuration(rule("<ExposeHeader>x-*</ExposeHeader>")), "InvalidRequest", "do not support wildcard"),
        (configuration(rule("<ExposeHeader>a\nb: c</ExposeHeader>")), "InvalidRequest", "printable"),
        (configuration(*[rule()] * (RULES_MAX + 1)), "InvalidRequest", "100 rules"),
        (configuration(rule(f"<ID>{' ' * DOCUMENT_BYTES_MAX}</ID>")), "InvalidRequest", "larger"),
    ],
)
def test_bad_documents(body: bytes, code: str, message: str) -> None:
    """Each with AWS's code."""
    with pytest.raises(S3Error) as caught:
        parse_cors(body)
    assert caught.value.code == code
    assert message in caught.value.message


def test_as_many_rules_as_there_may_be() -> None:
    """100."""
    assert len(parse_cors(configuration(*[rule()] * RULES_MAX))) == RULES_MAX


@given(PATTERNS, st.text(st.sampled_from("abAB01-.:/"), max_size=12))
def test_patterns_are_those_of_one_star(pattern: str, origin: str) -> None:
    """The same verdict as a regular expression's."""
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), origin) is not None
    assert (evaluate_cors([CorsRule((pattern,), ("GET",))], origin, "GET") is not None) == expected


def test_a_star_needs_both_ends() -> None:
    """`start*end` does not let its ends overlap."""
    rules = [CorsRule(("abc*cde",), ("GET",))]
    assert evaluate_cors(rules, "abcde", "GET") is None
    assert evaluate_cors(rules, "abccde", "GET") is not None


def test_the_first_rule_that_fits_decides() -> None:
    """By method, origin and headers together."""
    first = CorsRule(("http://a",), ("PUT",), ("x-amz-*",), max_age_s=1)
    second = CorsRule(("http://*",), ("GET", "PUT"), ("*",), max_age_s=2)
    for origin, method, headers, expected in (
        ("http://a", "PUT", (), first),
        ("http://a", "PUT", ("x-amz-meta-a",), first),
        ("http://a", "PUT", ("x-amz-meta-a", "content-type"), second),
        ("http://b", "PUT", (), second),
        ("http://a", "GET", (), second),
    ):
        grant = evaluate_cors([first, second], origin, method, headers)
        assert grant is not None
        assert grant.rule is expected
    assert evaluate_cors([first, second], "https://a", "GET") is None
    assert evaluate_cors([first, second], "http://a", "DELETE") is None


def test_a_header_that_is_not_allowed_refuses() -> None:
    """A rule without AllowedHeader grants none."""
    assert evaluate_cors([GET_ANY], "http://a", "GET", ("x-amz-meta-a",)) is None


def test_what_a_grant_says() -> None:
    """The very origin with credentials; a star without."""
    rule_all = CorsRule(("http://a",), ("GET", "PUT"), ("*",), ("etag", "x-amz-meta-a"), 30)
    grant = evaluate_cors([rule_all], "http://a", "PUT", ("content-type", "x-a"))
    assert grant is not None
    assert dict(format_grant(grant, ("content-type", "x-a"))) == {
        b"access-control-allow-origin": b"http://a",
        b"access-control-allow-methods": b"GET, PUT",
        b"access-control-allow-headers": b"content-type, x-a",
        b"access-control-expose-headers": b"etag, x-amz-meta-a",
        b"access-control-max-age": b"30",
        b"access-control-allow-credentials": b"true",
        b"vary": b"Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
    }
    anybody = evaluate_cors([GET_ANY], "http://a", "GET")
    assert anybody is not None
    assert [name for name, _ in format_grant(anybody)] == [
        b"access-control-allow-origin",
        b"access-control-allow-methods",
        b"vary",
    ]


def test_requests_of_a_bucket() -> None:
    """Nothing without an Origin or a configuration; a caller that is not let in is told what it depends on."""
    plain, configured = Bucket(1, "b", "o", "r", 0, "k"), bucket(GET_ANY)
    assert plan_cross_origin(plain, "GET", {"origin": "http://a"}) == []
    assert plan_cross_origin(configured, "GET", {}) == []
    assert plan_cross_origin(configured, "OPTIONS", {"origin": "http://a"}) == []
    assert [name for name, _ in plan_cross_origin(configured, "PUT", {"origin": "http://a"})] == [b"vary"]
    assert (b"access-control-allow-origin", b"*") in plan_cross_origin(configured, "GET", {"origin": "http://a"})
    asked = {"origin": "http://a", "access-control-request-method": "GET"}
    assert (b"access-control-allow-origin", b"*") in plan_cross_origin(configured, "PUT", asked)


def test_requested_headers() -> None:
    """Without regard to case and blanks, and bounded."""
    assert parse_requested_headers("") == ()
    assert parse_requested_headers(" X-A,, b ,c") == ("x-a", "b", "c")
    assert parse_requested_headers(",".join(["a"] * REQUESTED_HEADERS_MAX)) is not None
    assert parse_requested_headers(",".join(["a"] * (REQUESTED_HEADERS_MAX + 1))) is None


@given(st.binary(max_size=200))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    """Nothing but a 400 is raised."""
    try:
        parse_cors(body)
    except S3Error as error:
        assert error.status == 400
