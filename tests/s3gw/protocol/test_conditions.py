"""Conditional requests: the truth table of RFC 9110 as S3 applies it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.conditions import (
    Verdict,
    evaluate_copy_source,
    evaluate_if_range,
    evaluate_read,
    parse_delete_conditions,
    parse_etags,
    parse_write_conditions,
)
from s3gw.protocol.dates import format_http_date
from s3gw.protocol.errors import S3Error
from storage.metadata.commands import Conditions

NOW_MS = 1_700_000_000_500
BEFORE, AT, AFTER = (format_http_date(NOW_MS + shift) for shift in (-1000, 0, 1000))
GO, SAME, FAIL = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        ('"e"', True),
        ("e", True),
        (AT, True),
        ('W/"e"', False),
        ('"x"', False),
        (BEFORE, False),
        (AFTER, False),
        ("", False),
    ],
)
def test_if_range(header: str, holds: bool) -> None:
    """The very state, or the range does not count; a later date is another state as well."""
    assert evaluate_if_range(header, "e", NOW_MS) is holds


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, GO),
        ({"if-match": '"e"'}, GO),
        ({"if-match": "e"}, GO),
        ({"if-match": 'W/"e"'}, GO),
        ({"if-match": '"x", "e"'}, GO),
        ({"if-match": "*"}, GO),
        ({"if-match": '"x"'}, FAIL),
        ({"if-match": ""}, FAIL),
        ({"if-none-match": '"e"'}, SAME),
        ({"if-none-match": "*"}, SAME),
        ({"if-none-match": '"x"'}, GO),
        ({"if-modified-since": AT}, SAME),
        ({"if-modified-since": AFTER}, SAME),
        ({"if-modified-since": BEFORE}, GO),
        ({"if-unmodified-since": AT}, GO),
        ({"if-unmodified-since": AFTER}, GO),
        ({"if-unmodified-since": BEFORE}, FAIL),
        ({"if-modified-since": "no date"}, GO),
        ({"if-unmodified-since": "no date"}, GO),
        ({"if-match": '"e"', "if-unmodified-since": BEFORE}, GO),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, GO),
        ({"if-none-match": '"e"', "if-modified-since": BEFORE}, SAME),
        ({"if-match": '"x"', "if-none-match": '"e"'}, FAIL),
        ({"if-match": '"e"', "if-none-match": '"e"'}, SAME),
        ({"if-unmodified-since": BEFORE, "if-none-match": '"e"'}, FAIL),
    ],
)
def test_reads(headers: dict[str, str], verdict: Verdict) -> None:
    """412 before 304; an entity tag silences its date twin; dates count whole seconds."""
    assert evaluate_read(headers, "e", NOW_MS) is verdict


@pytest.mark.parametrize(
    ("name", "text", "holds"),
    [
        ("if-match", '"e"', True),
        ("if-match", '"x"', False),
        ("if-none-match", '"e"', False),
        ("if-none-match", '"x"', True),
        ("if-modified-since", BEFORE, True),
        ("if-modified-since", AFTER, False),
        ("if-unmodified-since", BEFORE, False),
        ("if-unmodified-since", AFTER, True),
    ],
)
def test_copy_sources(name: str, text: str, holds: bool) -> None:
    """Of a copy every failed condition is 412, and the plain headers do not count."""
    headers = {f"x-amz-copy-source-{name}": text, "if-match": '"other"'}
    if holds:
        evaluate_copy_source(headers, "e", NOW_MS)
        return
    with pytest.raises(S3Error) as caught:
        evaluate_copy_source(headers, "e", NOW_MS)
    assert caught.value.code == "PreconditionFailed"


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        ({}, Conditions()),
        ({"if-none-match": "*"}, Conditions(if_none_match="*")),
        ({"if-match": '"abc"'}, Conditions(if_match="abc")),
        ({"if-match": "abc"}, Conditions(if_match="abc")),
        ({"if-match": "abc", "if-none-match": "*"}, Conditions("abc", "*")),
    ],
)
def test_writes_are_only_parsed(headers: dict[str, str], conditions: Conditions) -> None:
    """Bare tags; nothing decided."""
    assert parse_write_conditions(headers) == conditions


@pytest.mark.parametrize("text", ['"a", "b"', "", ", ,"])
def test_a_condition_that_cannot_be_kept_is_refused(text: str) -> None:
    """Never ignored: a lock file depends on it."""
    with pytest.raises(S3Error) as caught:
        parse_write_conditions({"if-match": text})
    assert caught.value.code == "NotImplemented"


@given(st.text(max_size=60))
def test_any_header_is_a_list_of_tags(header: str) -> None:
    """No header raises or loops; quotes never remain."""
    assert all('"' not in tag for tag in parse_etags(header))


@given(st.lists(st.text(st.characters(codec="ascii", exclude_characters='"'), max_size=8), min_size=1, max_size=8))
def test_quoted_lists_come_back(tags: list[str]) -> None:
    """Whatever stands between quotes is a tag."""
    assert parse_etags(", ".join(f'"{tag}"' for tag in tags)) == frozenset(tags)


def test_a_hostile_list_costs_its_length() -> None:
    """What begins like a tag and ends like none; backtracking over it would stop the worker for seconds."""
    blanks = " " * 30_000
    assert parse_etags(f'a{blanks}"') == {"a"}
    assert parse_etags(f'{blanks}W/"b"{blanks},{blanks}c{blanks}') == {"b", "c"}
    assert parse_etags('" "' * 10_000) == {" "}


@pytest.mark.parametrize(
    ("headers", "conditions"),
    [
        ({}, Conditions()),
        ({"if-match": ""}, Conditions()),
        ({"if-match": '"e"'}, Conditions(if_match="e")),
        ({"x-amz-if-match-size": "0"}, Conditions(size=0)),
        ({"x-amz-if-match-last-modified-time": AT}, Conditions(last_modified_s=NOW_MS // 1000)),
        ({"if-match": "*", "x-amz-if-match-size": "7"}, Conditions(if_match="*", size=7)),
    ],
)
def test_conditions_of_a_delete(headers: dict[str, str], conditions: Conditions) -> None:
    """All three, alone and together."""
    assert parse_delete_conditions(headers) == conditions


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"if-none-match": "*"}, "NotImplemented"),
        ({"if-match": '"a", "b"'}, "NotImplemented"),
        ({"x-amz-if-match-size": "big"}, "InvalidArgument"),
        ({"x-amz-if-match-size": "9" * 5000}, "InvalidArgument"),
        ({"x-amz-if-match-last-modified-time": "yesterday"}, "InvalidArgument"),
    ],
)
def test_conditions_of_a_delete_that_are_refused(headers: dict[str, str], code: str) -> None:
    """Never ignored: the delete would go through."""
    with pytest.raises(S3Error) as caught:
        parse_delete_conditions(headers)
    assert caught.value.code == code
