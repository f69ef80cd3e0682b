"""Whom a policy names, and who that is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.principals import ANONYMOUS, PRINCIPALS_MAX, format_user_arn, is_anonymous, parse_principals
from storage.model import User
from tests.s3gw.gateway import ALICE, BOB, ROOT


@pytest.mark.parametrize(
    ("given_principals", "included"),
    [
        ("*", [ALICE, BOB, ROOT, ANONYMOUS]),
        ({"AWS": "*"}, [ALICE, BOB, ROOT, ANONYMOUS]),
        ({"AWS": ["*"]}, [ALICE, BOB, ROOT, ANONYMOUS]),
        ({"AWS": BOB.canonical_id}, [BOB]),
        ({"CanonicalUser": BOB.canonical_id}, [BOB]),
        ({"AWS": f"arn:aws:iam::{BOB.canonical_id}:root"}, [BOB]),
        ({"AWS": "arn:aws:iam:::user/bob"}, [BOB]),
        ({"AWS": "arn:aws:iam::123456789012:user/bob"}, [BOB]),
        ({"AWS": f"arn:aws:iam::{BOB.canonical_id}:user/team/x/bob"}, [BOB]),
        ({"AWS": ["arn:aws:iam:::user/bob", ALICE.canonical_id]}, [ALICE, BOB]),
        ({"AWS": "123456789012"}, []),
        ({"AWS": "arn:aws:iam::123456789012:root"}, []),
        ({"AWS": "arn:aws:iam::123456789012:role/bob"}, []),
        ({"AWS": "arn:aws:sts::123456789012:assumed-role/bob/x"}, []),
        ({"Service": "logging.s3.amazonaws.com"}, []),
        ({"Federated": "cognito-identity.amazonaws.com"}, []),
        ({"Service": "x", "AWS": BOB.canonical_id}, [BOB]),
        ({"AWS": "arn:aws:iam:::user/Bob"}, []),
        ({"CanonicalUser": ANONYMOUS.canonical_id}, []),
    ],
)
def test_who_is_named(given_principals: Any, included: list[User]) -> None:
    """Who does not sign is only ever everyone, whatever id stands for it."""
    principals = parse_principals(given_principals)
    assert [user for user in (ALICE, BOB, ROOT, ANONYMOUS) if principals.include(user)] == included


@pytest.mark.parametrize(
    "given_principals",
    [
        "bob",
        "",
        None,
        [],
        {},
        {"AWS": []},
        {"AWS": ""},
        {"AWS": None},
        {"AWS": [1]},
        {"AWS": {"a": "b"}},
        {"aws": "*"},
        {"AWS": "arn:aws:iam:::user/*"},
        {"AWS": "arn:aws:iam:::user/"},
        {"AWS": "arn:aws:iam:::root"},
        {"AWS": "arn:aws:s3:::bucket"},
        {"AWS": "a*"},
        {"AWS": "arn:aws:iam:::user/b\nob"},
        {"AWS": "arn:aws:iam:::user/\ud800"},
        {"AWS": ["x"] * (PRINCIPALS_MAX + 1)},
    ],
)
def test_names_that_are_refused(given_principals: Any) -> None:
    """As AWS says it."""
    with pytest.raises(S3Error, match="Invalid principal in policy"):
        parse_principals(given_principals)


@given(st.text(max_size=60))
def test_any_text_names_somebody_or_is_refused(text: str) -> None:
    """Never another exception."""
    for one in (text, {"AWS": text}, {"AWS": f"arn:aws:iam::{text}:user/{text}"}):
        try:
            parse_principals(one)
        except S3Error as error:
            assert error.code == "MalformedPolicy"


def test_the_anonymous_caller_is_no_user() -> None:
    """Not even one with the same canonical id; and it has no name of its own."""
    same = User(ANONYMOUS.canonical_id, "named", "Named")
    assert is_anonymous(ANONYMOUS) and not is_anonymous(same) and not is_anonymous(ROOT)
    assert format_user_arn(BOB) == f"arn:aws:iam::{BOB.canonical_id}:user/bob"
    assert parse_principals({"AWS": format_user_arn(BOB)}).include(BOB)
