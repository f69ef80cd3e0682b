"""Bucket policies: which documents are taken, and what they say of a request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.policy import POLICY_BYTES_MAX, Effect, evaluate_policy, find_policy, parse_policy
from s3gw.protocol.principals import ANONYMOUS
from storage.model import User
from tests.s3gw.gateway import ALICE, BOB

STATEMENT: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": "arn:aws:s3:::b/*",
}


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> bytes:
    """A policy of these statements."""
    return json.dumps({"Version": version, "Statement": list(statements)}).encode()


def statement(**changes: Any) -> dict[str, Any]:
    """The plain statement with other fields; None takes one away."""
    changed = STATEMENT | changes
    return {name: text for name, text in changed.items() if text is not None}


def say(
    policy: bytes,
    caller: User = BOB,
    permission: str = "s3:GetObject",
    resource: str = "arn:aws:s3:::b/k",
    values: dict[str, Sequence[str]] | None = None,
) -> Effect | None:
    """What a policy says of a request."""
    return evaluate_policy(
        parse_policy(policy, "b"), caller, permission, resource, lambda key: (values or {}).get(key, ())
    ).effect


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Policies must be valid JSON and the first byte must be '{'"),
        (b"[]", "Policies must be valid JSON and the first byte must be '{'"),
        (b"{", "This policy contains invalid Json"),
        (b'{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}', "This policy contains invalid Json"),
        (b'{"Statement": NaN}', "This policy contains invalid Json"),
        (b'{"Statement": ' + b"[" * 9000 + b"]" * 9000 + b"}", "This policy contains invalid Json"),
        (b'{"Statement": ' + b"1" * 9000 + b"}", "This policy contains invalid Json"),
        (b'{"Id": "\xff"}', "This policy contains invalid Json"),
        (b"{" + b" " * POLICY_BYTES_MAX + b"}", "exceeds the maximum allowed size"),
        (b'{"Version": "2012-10-17"}', "Missing required field Statement"),
        (b'{"Statement": []}', "Statement is empty"),
        (b'{"Statement": ["x"]}', "Invalid policy syntax"),
        (b'{"Statement": [], "Sttmnt": 1}', "Unknown field Sttmnt"),
        (b'{"Statement": [], "Id": 1}', "Invalid policy syntax"),
        (document(STATEMENT, version="2020-01-01"), "valid version string"),
        (document(statement(Effect=None)), "Missing required field Effect"),
        (document(statement(Effect="allow")), "Invalid effect: allow"),
        (document(statement(Principal=None)), "Missing required field Principal"),
        (document(statement(Action=None)), "Missing required field Action"),
        (document(statement(Resource=None)), "Missing required field Resource"),
        (document(statement(NotAction="s3:GetObject")), "already has instance of Action"),
        (document(statement(Principal=None, NotPrincipal="*")), "Allow with NotPrincipal"),
        (document(statement(Sid=1)), "Invalid policy syntax"),
        (document(statement(Sid="a"), statement(Sid="a")), "must be unique"),
        (document(statement(Extra=1)), "Unknown field Extra"),
        (document(statement(Action=[])), "Invalid policy syntax"),
        (document(statement(Action={"a": 1})), "Invalid policy syntax"),
        (document(statement(Action="s3:GetObjekt")), "Policy has invalid action"),
        (document(statement(Action="ec2:RunInstances")), "Policy has invalid action"),
        (document(statement(Action="GetObject")), "Policy has invalid action"),
        (document(statement(Resource="b/*")), "Policy has invalid resource"),
        (document(statement(Resource="arn:aws:s3:::other/*")), "Policy has invalid resource"),
        (document(statement(Resource="arn:aws:s3:::bb")), "Policy has invalid resource"),
        (document(statement(Resource="arn:aws:sqs:::b")), "Policy has invalid resource"),
        (document(statement(Principal="bob")), "Invalid principal in policy"),
        (document(statement(Condition=[])), "Invalid policy syntax"),
        (document(statement(Condition={"StringEquals": "x"})), "Invalid policy syntax"),
        (document(statement(Condition={"Equals": {"aws:Referer": "x"}})), "Invalid Condition type : Equals"),
    ],
)
def test_documents_that_are_refused(body: bytes, message: str) -> None:
    """MalformedPolicy, with AWS's sentence where it has one."""
    with pytest.raises(S3Error) as caught:
        parse_policy(body, "b")
    assert caught.value.code == "MalformedPolicy" and message in caught.value.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("s3:GetObject"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["Statement", "Effect", "Principal", "Action", "Condition", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_taken_or_malformed(value: Any) -> None:
    """Never another exception, wherever the junk stands."""
    for body in (value, {"Statement": value}, {"Statement": [STATEMENT | {"Principal": value}]}):
        text = json.dumps(body).encode()
        try:
            parse_policy(text, "b")
        except S3Error as error:
            assert error.code == "MalformedPolicy"
    for field in STATEMENT | {"Condition": {}}:
        try:
            parse_policy(document(STATEMENT | {field: value}), "b")
        except S3Error as error:
            assert error.code == "MalformedPolicy"


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_malformed(body: bytes) -> None:
    """Never another exception."""
    with pytest.raises(S3Error, match="MalformedPolicy"):
        parse_policy(body, "b")


@pytest.mark.parametrize(
    ("changes", "permission", "resource", "expected"),
    [
        ({}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({}, "s3:PutObject", "arn:aws:s3:::b/k", None),
        ({}, "s3:GetObject", "arn:aws:s3:::b", None),
        ({"Effect": "Deny"}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.DENY),
        ({"Action": "S3:gETobject"}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Action": "s3:Get*"}, "s3:GetObjectAcl", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Action": "*"}, "s3:DeleteObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Action": ["s3:PutObject", "s3:GetObjec?"]}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Action": None, "NotAction": "s3:Put*"}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Action": None, "NotAction": "s3:Get*"}, "s3:GetObject", "arn:aws:s3:::b/k", None),
        ({"Resource": "*"}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Resource": "arn:aws:s3:::*"}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Resource": "arn:aws:s3:::b/p/*"}, "s3:GetObject", "arn:aws:s3:::b/p/a/b", Effect.ALLOW),
        ({"Resource": "arn:aws:s3:::b/p/*"}, "s3:GetObject", "arn:aws:s3:::b/q", None),
        ({"Resource": None, "NotResource": "arn:aws:s3:::b/p/*"}, "s3:GetObject", "arn:aws:s3:::b/q", Effect.ALLOW),
        ({"Resource": None, "NotResource": "arn:aws:s3:::b/p/*"}, "s3:GetObject", "arn:aws:s3:::b/p/", None),
        ({"Resource": "arn:aws:s3:::b/${aws:username}/*"}, "s3:GetObject", "arn:aws:s3:::b/bob/x", Effect.ALLOW),
        ({"Resource": "arn:aws:s3:::b/${aws:username}/*"}, "s3:GetObject", "arn:aws:s3:::b/al/x", None),
        ({"Principal": {"AWS": BOB.canonical_id}}, "s3:GetObject", "arn:aws:s3:::b/k", Effect.ALLOW),
        ({"Principal": {"AWS": ALICE.canonical_id}}, "s3:GetObject", "arn:aws:s3:::b/k", None),
        (
            {"Effect": "Deny", "Principal": None, "NotPrincipal": {"AWS": "arn:aws:iam:::user/bob"}},
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            None,
        ),
        (
            {"Effect": "Deny", "Principal": None, "NotPrincipal": {"AWS": "arn:aws:iam:::user/alice"}},
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            Effect.DENY,
        ),
        (
            {"Condition": {"StringEquals": {"aws:username": "bob", "s3:prefix": "x"}}},
            "s3:GetObject",
            "arn:aws:s3:::b/k",
            None,
        ),
    ],
)
def test_what_a_statement_says(
    changes: dict[str, Any], permission: str, resource: str, expected: Effect | None
) -> None:
    """Of Bob's request: whom, what, where, and under which conditions."""
    values = {"aws:username": ("bob",)}
    assert say(document(statement(**changes)), BOB, permission, resource, values) is expected


@pytest.mark.parametrize("order", [1, -1])
def test_a_deny_wins_wherever_it_stands(order: int) -> None:
    """Before or behind the Allow; of what it does not speak of, the Allow decides."""
    policy = document(*[STATEMENT, statement(Effect="Deny", Resource="arn:aws:s3:::b/secret")][::order])
    assert say(policy, resource="arn:aws:s3:::b/secret") is Effect.DENY
    assert say(policy, resource="arn:aws:s3:::b/open") is Effect.ALLOW


def test_the_reason_names_the_statement() -> None:
    """By its number and its Sid."""
    policy = parse_policy(document(STATEMENT, statement(Effect="Deny", Sid="NoWay")), "b")
    opinion = evaluate_policy(policy, ANONYMOUS, "s3:GetObject", "arn:aws:s3:::b/k", lambda _: ())
    assert opinion.reason == "statement 2 (NoWay)"


def test_a_single_statement_needs_no_list() -> None:
    """As IAM has it; without a Version it is one of 2008, which knows no variables."""
    body = json.dumps({"Statement": statement(Resource="arn:aws:s3:::b/${aws:username}")}).encode()
    assert say(body, resource="arn:aws:s3:::b/${aws:username}") is Effect.ALLOW
    assert say(body, resource="arn:aws:s3:::b/bob", values={"aws:username": ("bob",)}) is None


def test_what_a_policy_asks_for_is_known() -> None:
    """So that an object is looked at only for those that depend on its tags."""
    plain = parse_policy(document(STATEMENT), "b")
    assert not plain.asks_for_existing_tags and not plain.asks_for_request_tags
    existing = statement(Condition={"StringEquals": {"S3:existingObjectTag/a": "b"}})
    assert parse_policy(document(existing), "b").asks_for_existing_tags
    variable = statement(Resource="arn:aws:s3:::b/${s3:ExistingObjectTag/owner}/*")
    assert parse_policy(document(variable), "b").asks_for_existing_tags
    request = statement(Condition={"ForAllValues:StringLike": {"s3:RequestObjectTagKeys": "x"}})
    assert parse_policy(document(request), "b").asks_for_request_tags


def test_a_document_is_compiled_once() -> None:
    """The same bytes give the same policy."""
    assert find_policy(document(STATEMENT)) is find_policy(document(STATEMENT))
