"""PURE. The Condition of a policy statement: operators, set operators and IfExists, compiled once.

Source: IAM User Guide, "IAM JSON policy elements: Condition operators" and "Creating a condition with multiple keys or
values". Every test of a Condition must hold; within one, any of the policy's values suffices, and for a negated
operator none may fit. A key that the request does not have fails a test, but passes a negated one and IfExists.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3gw.protocol.errors import S3Error
from s3gw.protocol.policy_patterns import FindVariable, Pattern

TESTS_MAX = 256
"""in one statement; the document's size bounds it as well"""

FindValues = Callable[[str], Sequence[str]]
"""a condition key as the policy writes it → the request's values, empty when it has none"""

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_YEAR = re.compile(r"[0-9]{4}")
_NAME = re.compile(r"(?:(ForAnyValue|ForAllValues):)?([A-Za-z]+?)(IfExists)?")
_KEY = re.compile(
    r"(?:aws|s3|jwt|saml|sts|iam|kms|cognito-identity\.amazonaws\.com):[\x21-\x7e][\x20-\x7e]{0,255}", re.IGNORECASE
)
_ARN_PARTS = 6


class _Set(enum.Enum):
    NONE = ""
    ANY = "ForAnyValue"
    ALL = "ForAllValues"


Fits = Callable[[str, FindVariable], bool]
"""(a value of the request, variables) → whether it fits one value of the policy"""


class Test(NamedTuple):
    """One operator on one key with the policy's values."""

    key: str
    fits: tuple[Fits, ...]
    negated: bool
    if_exists: bool
    quantifier: _Set
    variables: frozenset[str]
    texts: tuple[str, ...]
    """the policy's values as it writes them"""
    operator: str
    """without set operator and IfExists"""

    def holds(self, find_values: FindValues, find_variable: FindVariable) -> bool:
        """Whether a request passes."""
        values = find_values(self.key)
        if self.operator == "Null":
            return any(text.lower() == ("false" if values else "true") for text in self.texts)
        if not values:
            if self.if_exists or self.quantifier is _Set.ALL:
                return True
            return self.negated and self.quantifier is _Set.NONE
        if self.quantifier is _Set.ALL or (self.negated and self.quantifier is _Set.NONE):
            return all(self._passes(value, find_variable) for value in values)
        return any(self._passes(value, find_variable) for value in values)

    def _passes(self, value: str, find_variable: FindVariable) -> bool:
        return any(fits(value, find_variable) for fits in self.fits) is not self.negated


def parse_condition(condition: Mapping[str, Any], with_variables: bool) -> tuple[Test, ...]:
    """`{operator: {key: value or [values]}}` → its tests. MalformedPolicy."""
    tests: list[Test] = []
    for name, keys in condition.items():
        match = _NAME.fullmatch(name)
        maker = _OPERATORS.get(match[2]) if match else None
        if match is None or maker is None or (match[2] == "Null" and (match[1] or match[3])):
            raise S3Error("MalformedPolicy", f"Invalid Condition type : {name[:64]}")
        if not isinstance(keys, dict):
            raise S3Error("MalformedPolicy", "Invalid policy syntax.")
        for key, given in keys.items():
            if not _KEY.fullmatch(key):
                raise S3Error("MalformedPolicy", "Policy has an invalid condition key")
            texts = _parse_values(given)
            compiled = [maker.compile(text, with_variables) for text in texts]
            tests.append(
                Test(
                    key,
                    tuple(fits for fits, _ in compiled),
                    maker.negated,
                    match[3] is not None,
                    _Set(match[1] or ""),
                    frozenset().union(*(variables for _, variables in compiled)),
                    texts,
                    match[2],
                )
            )
    if len(tests) > TESTS_MAX:
        raise S3Error("MalformedPolicy", f"A statement has at most {TESTS_MAX} conditions.")
    return tuple(tests)


def _parse_values(given: Any) -> tuple[str, ...]:
    values = given if isinstance(given, list) else [given]
    if not values:
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    return tuple(map(_parse_value, values))


def _parse_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise S3Error("MalformedPolicy", "Invalid policy syntax.")


# ------------------------------------------------------------------ operators

_Compiled = tuple[Fits, frozenset[str]]
_NO_VARIABLES: frozenset[str] = frozenset()


class _Operator(NamedTuple):
    compile: Callable[[str, bool], _Compiled]
    negated: bool = False


def _string_equals(text: str, with_variables: bool) -> _Compiled:
    pattern = Pattern(text, wild=False, with_variables=with_variables)
    return pattern.matches, pattern.variables


def _string_like(text: str, with_variables: bool) -> _Compiled:
    pattern = Pattern(text, wild=True, with_variables=with_variables)
    return pattern.matches, pattern.variables


def _string_equals_ignoring_case(text: str, with_variables: bool) -> _Compiled:
    pattern = Pattern(text.casefold(), wild=False, with_variables=with_variables)

    def fits(value: str, find_variable: FindVariable) -> bool:
        return pattern.matches(value.casefold(), lambda name: _fold(find_variable(name)))

    return fits, pattern.variables


def _fold(value: str | None) -> str | None:
    return None if value is None else value.casefold()


def _arn(text: str, with_variables: bool) -> _Compiled:
    """Six parts, each matched on its own: a star does not cross a colon, but in the last."""
    parts = text.split(":", _ARN_PARTS - 1)
    if text == "*":
        return (lambda value, find_variable: True), _NO_VARIABLES
    patterns = [Pattern(part, wild=True, with_variables=with_variables) for part in parts]

    def fits(value: str, find_variable: FindVariable) -> bool:
        found = value.split(":", _ARN_PARTS - 1)
        return len(found) == len(patterns) and all(
            pattern.matches(part, find_variable) for pattern, part in zip(patterns, found, strict=True)
        )

    return fits, frozenset().union(*(pattern.variables for pattern in patterns))


def _bool(text: str, _: bool) -> _Compiled:
    if text.lower() not in ("true", "false"):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    return (lambda value, find_variable: value.lower() == text.lower()), _NO_VARIABLES


def _address(text: str, _: bool) -> _Compiled:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise S3Error("MalformedPolicy", f"Invalid IP range: {text[:64]}") from None

    def fits(value: str, find_variable: FindVariable) -> bool:
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address) in network

    return fits, _NO_VARIABLES


def _numeric(compare: Callable[[float, float], bool]) -> Callable[[str, bool], _Compiled]:
    return _ordered(parse_number, compare)


def _date(compare: Callable[[float, float], bool]) -> Callable[[str, bool], _Compiled]:
    return _ordered(parse_moment, compare)


def _ordered(
    parse: Callable[[str], float | None], compare: Callable[[float, float], bool]
) -> Callable[[str, bool], _Compiled]:
    def compile_value(text: str, _: bool) -> _Compiled:
        wanted = parse(text)
        if wanted is None:
            raise S3Error("MalformedPolicy", "Invalid policy syntax.")

        def fits(value: str, find_variable: FindVariable) -> bool:
            number = parse(value)
            return number is not None and compare(number, wanted)

        return fits, _NO_VARIABLES

    return compile_value


def parse_number(text: str) -> float | None:
    """A decimal number; None for anything else."""
    return float(text) if _NUMBER.fullmatch(text) else None


def parse_moment(text: str) -> float | None:
    """An ISO 8601 date or time (UTC unless it says otherwise), or seconds since the epoch; None for anything else.

    Four digits are a year, any other number is seconds.
    """
    is_year = _YEAR.fullmatch(text) is not None
    number = parse_number(text)
    if number is not None and not is_year:
        return number
    try:
        moment = datetime.fromisoformat(f"{text}-01-01" if is_year else text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


_COMPARISONS: dict[str, tuple[Callable[[float, float], bool], bool]] = {
    "Equals": (lambda value, wanted: value == wanted, False),
    "NotEquals": (lambda value, wanted: value == wanted, True),
    "LessThan": (lambda value, wanted: value < wanted, False),
    "LessThanEquals": (lambda value, wanted: value <= wanted, False),
    "GreaterThan": (lambda value, wanted: value > wanted, False),
    "GreaterThanEquals": (lambda value, wanted: value >= wanted, False),
}

_OPERATORS: dict[str, _Operator] = {
    "StringEquals": _Operator(_string_equals),
    "StringNotEquals": _Operator(_string_equals, negated=True),
    "StringEqualsIgnoreCase": _Operator(_string_equals_ignoring_case),
    "StringNotEqualsIgnoreCase": _Operator(_string_equals_ignoring_case, negated=True),
    "StringLike": _Operator(_string_like),
    "StringNotLike": _Operator(_string_like, negated=True),
    "BinaryEquals": _Operator(_string_equals),
    "Bool": _Operator(_bool),
    "IpAddress": _Operator(_address),
    "NotIpAddress": _Operator(_address, negated=True),
    "ArnEquals": _Operator(_arn),
    "ArnLike": _Operator(_arn),
    "ArnNotEquals": _Operator(_arn, negated=True),
    "ArnNotLike": _Operator(_arn, negated=True),
    "Null": _Operator(_bool),
    **{f"Numeric{name}": _Operator(_numeric(compare), negated) for name, (compare, negated) in _COMPARISONS.items()},
    **{f"Date{name}": _Operator(_date(compare), negated) for name, (compare, negated) in _COMPARISONS.items()},
}
"""Equals and Like of ARNs mean the same, as on AWS"""
