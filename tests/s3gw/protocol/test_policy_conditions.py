"""The operators of policy conditions: a table for each, and what the set operators and IfExists make of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.policy_conditions import TESTS_MAX, parse_condition, parse_moment, parse_number

KEY = "aws:SourceIp"


def holds(operator: str, wanted: Any, *values: str) -> bool:
    """Whether a request with these values of the key passes."""
    (test,) = parse_condition({operator: {KEY: wanted}}, True)
    return test.holds(lambda key: values if key == KEY else (), {"aws:username": "bob"}.get)


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "expected"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a", "A", False),
        ("StringEquals", "a*", "ab", False),
        ("StringEquals", "${aws:username}", "bob", True),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringEquals", [], "b", None),
        ("StringNotEquals", "a", "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringEqualsIgnoreCase", "ÄB", "äb", True),
        ("StringEqualsIgnoreCase", "${aws:username}", "BOB", True),
        ("StringNotEqualsIgnoreCase", "a", "A", False),
        ("StringLike", "a*c?", "abbcd", True),
        ("StringLike", "a*", "b", False),
        ("StringNotLike", "a*", "ab", False),
        ("BinaryEquals", "QUJD", "QUJD", True),
        ("NumericEquals", "10", "10.0", True),
        ("NumericEquals", 10, "10", True),
        ("NumericNotEquals", "10", "11", True),
        ("NumericLessThan", "10", "9", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "10", "9", False),
        ("NumericGreaterThanEquals", "-1", "0", True),
        ("NumericLessThan", "10", "nine", False),
        ("NumericLessThan", "ten", "9", None),
        ("NumericLessThan", "1e9", "9", None),
        ("DateEquals", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", True),
        ("DateNotEquals", "2026-01-01", "2026-01-02", True),
        ("DateLessThan", "2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z", True),
        ("DateLessThanEquals", "2026-01-01", "1767225600", True),
        ("DateGreaterThan", "1767225600", "2026-01-01T00:00:01Z", True),
        ("DateGreaterThanEquals", "2026-01-01", "2025-01-01", False),
        ("DateGreaterThan", "yesterday", "2025-01-01", None),
        ("DateGreaterThan", "2026-01-01", "today", False),
        ("Bool", "true", "true", True),
        ("Bool", True, "true", True),
        ("Bool", False, "true", False),
        ("Bool", "perhaps", "true", None),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("IpAddress", "10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("IpAddress", "10.0.0.1", "10.0.0.1", True),
        ("IpAddress", "10.0.0.0/8", "11.1.2.3", False),
        ("IpAddress", "2001:db8::/32", "2001:db8::1", True),
        ("IpAddress", "2001:db8::/32", "10.0.0.1", False),
        ("IpAddress", "10.0.0.0/8", "", False),
        ("IpAddress", "10.0.0.0/33", "10.1.2.3", None),
        ("NotIpAddress", "10.0.0.0/8", "11.1.2.3", True),
        ("NotIpAddress", ["10.0.0.0/8", "11.0.0.0/8"], "11.1.2.3", False),
        ("ArnEquals", "arn:aws:iam::*:user/b*", "arn:aws:iam::1:user/bob", True),
        ("ArnLike", "arn:aws:*:user/bob", "arn:aws:iam::1:user/bob", False),
        ("ArnLike", "*", "anything", True),
        ("ArnNotEquals", "arn:aws:iam::1:user/bob", "arn:aws:iam::2:user/bob", True),
        ("ArnNotLike", "arn:aws:iam::?:user/bob", "arn:aws:iam::2:user/bob", False),
        ("Null", "true", "x", False),
        ("Null", False, "x", True),
        ("NullIfExists", "true", "x", None),
        ("ForAnyValue:Null", "true", "x", None),
        ("StringSomething", "a", "a", None),
        ("stringequals", "a", "a", None),
        ("ForNoValue:StringEquals", "a", "a", None),
        ("StringEquals", {"a": 1}, "a", None),
        ("StringEquals", [["a"]], "a", None),
        ("StringEquals", None, "a", None),
    ],
)
def test_operators(operator: str, wanted: Any, value: str, expected: bool | None) -> None:
    """None: such a policy is refused."""
    if expected is None:
        with pytest.raises(S3Error, match="MalformedPolicy"):
            holds(operator, wanted, value)
    else:
        assert holds(operator, wanted, value) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringNotEquals", True),
        ("StringLikeIfExists", True),
        ("StringNotLikeIfExists", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
        ("ForAnyValue:StringEqualsIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAllValues:StringNotEquals", True),
    ],
)
def test_a_key_that_the_request_does_not_have(operator: str, expected: bool) -> None:
    """Fails what is positive, passes what is negated, IfExists and ForAllValues."""
    assert holds(operator, "a") is expected


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_null_of_a_missing_key(wanted: str) -> None:
    """`true` says that it is missing."""
    assert holds("Null", wanted) is (wanted == "true")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.lists(st.sampled_from("abc"), max_size=3))
def test_set_operators_are_set_operations(wanted: list[str], values: list[str]) -> None:
    """All: nothing outside. Any: something inside. The negated ones: of the complement."""
    inside, outside = set(values) & set(wanted), set(values) - set(wanted)
    assert holds("ForAllValues:StringEquals", wanted, *values) is (not outside)
    assert holds("ForAnyValue:StringEquals", wanted, *values) is bool(inside)
    assert holds("ForAllValues:StringNotEquals", wanted, *values) is (not inside)
    assert holds("ForAnyValue:StringNotEquals", wanted, *values) is bool(outside)
    assert holds("StringNotEquals", wanted, *values) is (not inside)


@given(st.floats(-1e9, 1e9).map(lambda number: round(number, 6)), st.integers(-(10**9), 10**9))
def test_numbers_compare_as_numbers(wanted: float, value: int) -> None:
    """Exactly one of less, equal and greater."""
    text = f"{wanted:.6f}"
    found = [holds(f"Numeric{name}", text, str(value)) for name in ("LessThan", "Equals", "GreaterThan")]
    assert found == [value < float(text), value == float(text), value > float(text)]


@given(st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)))
def test_dates_are_moments(moment: datetime) -> None:
    """Written with a zone, without one, or as seconds."""
    aware = moment.replace(tzinfo=UTC, microsecond=0)
    assert parse_moment(f"{aware:%Y-%m-%dT%H:%M:%SZ}") == parse_moment(aware.isoformat()) == aware.timestamp()
    assert parse_moment(f"{moment:%Y-%m-%dT%H:%M:%S}") == aware.timestamp()
    assert parse_moment(str(int(aware.timestamp()))) == aware.timestamp()


@given(st.text(max_size=30))
def test_whatever_is_written_is_a_number_a_date_or_neither(text: str) -> None:
    """And never an exception."""
    assert isinstance(parse_number(text), float | None)
    assert isinstance(parse_moment(text), float | None)


@pytest.mark.parametrize("key", ["SourceIp", "x:y", "aws:", "aws:a\nb", "", "s3:" + "a" * 300])
def test_keys_that_cannot_be(key: str) -> None:
    """A test of nothing would never hold."""
    with pytest.raises(S3Error, match="condition key"):
        parse_condition({"StringEquals": {key: "a"}}, True)


def test_the_number_of_tests_is_bounded() -> None:
    """In one statement."""
    with pytest.raises(S3Error, match="MalformedPolicy"):
        parse_condition({"StringEquals": {f"aws:k{number}": "a" for number in range(TESTS_MAX + 1)}}, True)


def test_variables_of_a_test_are_told() -> None:
    """Those in values that are matched as text; numbers have none."""
    (test,) = parse_condition({"StringLike": {"s3:prefix": ["home/${aws:username}/*", "x"]}}, True)
    assert test.variables == {"aws:username"} and test.texts == ("home/${aws:username}/*", "x")
    (test,) = parse_condition({"StringLike": {"s3:prefix": "home/${aws:username}/*"}}, False)
    assert test.variables == frozenset()
