"""The texts of policies: stars, question marks and variables, held against regular expressions."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.policy_patterns import Pattern

VALUES = {"aws:username": "bob", "s3:prefix": "a/*", "aws:userid": ""}


def matches(pattern: str, text: str, *, wild: bool = True, with_variables: bool = True) -> bool:
    """Compile and match with the variables above."""
    return Pattern(pattern, wild=wild, with_variables=with_variables).matches(text, VALUES.get)


def as_expression(pattern: str) -> re.Pattern[str]:
    """What a pattern without variables means."""
    words = {"*": ".*", "?": "."}
    return re.compile("".join(words.get(character, re.escape(character)) for character in pattern), re.DOTALL)


@given(st.text("ab*?", max_size=12), st.text("ab*?", max_size=16))
def test_wildcards_mean_what_expressions_say(pattern: str, text: str) -> None:
    """Every short pattern against every short text."""
    assert matches(pattern, text) is (as_expression(pattern).fullmatch(text) is not None)


@given(st.text(max_size=20), st.text(max_size=20))
def test_without_wildcards_it_is_equality(pattern: str, text: str) -> None:
    """A star is a star then."""
    assert matches(pattern, text, wild=False, with_variables=False) is (pattern == text)
    assert matches(pattern, pattern, wild=False, with_variables=False)


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("", "", True),
        ("", "x", False),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*?", "ab", True),
        ("home/${aws:username}/*", "home/bob/x", True),
        ("home/${aws:username}/*", "home/alice/x", False),
        ("${ aws:username }", "bob", True),
        ("${s3:prefix}", "a/*", True),
        ("${s3:prefix}", "a/b", False),
        ("${aws:nothing}", "", False),
        ("${aws:nothing, 'none'}", "none", True),
        ("${aws:username, 'none'}", "bob", True),
        ("${aws:userid}x", "x", True),
        ("a${*}b", "a*b", True),
        ("a${*}b", "axb", False),
        ("${?}${$}", "?$", True),
        ("${", "${", True),
        ("${}", "${}", True),
    ],
)
def test_variables(pattern: str, text: str, expected: bool) -> None:
    """A value is literal; a missing one fits nothing unless there is a default."""
    assert matches(pattern, text) is expected


def test_old_policies_know_no_variables() -> None:
    """Version 2008-10-17: the dollar and the braces are characters."""
    assert matches("${aws:username}", "${aws:username}", with_variables=False)
    assert not matches("${aws:username}", "bob", with_variables=False)


def test_the_names_of_variables_are_told() -> None:
    """So that a policy knows which keys it depends on."""
    pattern = Pattern("${aws:username}/${s3:prefix, 'x'}${*}", wild=True, with_variables=True)
    assert pattern.variables == {"aws:username", "s3:prefix"}


def test_hostile_patterns_cost_little() -> None:
    """What makes backtracking matchers go on for ever; the bound is many times what it takes."""
    began = time.process_time()
    assert not matches("*a" * 5000 + "b", "a" * 4000)
    assert not matches("?*" * 1000 + "b", "a" * 4000)
    assert not matches("*a?" * 3000, "b" * 4000)
    assert time.process_time() - began < 5
