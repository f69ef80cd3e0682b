"""PURE. Bucket policies: a JSON document → one compiled Policy, and what it says of a request.

Source: IAM User Guide, "IAM JSON policy elements reference"; Amazon S3 User Guide, "Bucket policies". The sentences of
the refusals are AWS's, since people search for them. A document is compiled once for all requests (find_policy).
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

from s3gw.protocol.errors import S3Error
from s3gw.protocol.permissions import is_known
from s3gw.protocol.policy_conditions import FindValues, Test, parse_condition
from s3gw.protocol.policy_patterns import FindVariable, Pattern
from s3gw.protocol.principals import Principals, parse_principals
from storage.model import User

POLICY_BYTES_MAX = 20 * 1024
POLICIES_REMEMBERED_MAX = 512

WITH_VARIABLES = "2012-10-17"
_VERSIONS = ("2008-10-17", WITH_VARIABLES)
_POLICY_FIELDS = frozenset({"Version", "Id", "Statement"})
_STATEMENT_FIELDS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)
_ACTION = re.compile(r"\*|[sS]3:[A-Za-z*?]{1,128}")
_RESOURCE = re.compile(r"arn:[a-z*?-]{1,16}:s3:[^:]{0,64}:[^:]{0,64}:(.+)", re.DOTALL)
RESOURCE_PREFIX = "arn:aws:s3:::"
EXISTING_TAG = "s3:existingobjecttag/"
REQUEST_TAGS = ("s3:requestobjecttag/", "s3:requestobjecttagkeys")


class Effect(enum.StrEnum):
    """Of a statement that speaks of a request."""

    ALLOW = "Allow"
    DENY = "Deny"


class Statement(NamedTuple):
    """One compiled statement. not_…: everything but what is listed."""

    sid: str
    effect: Effect
    principals: Principals
    not_principal: bool
    actions: tuple[Pattern, ...]
    not_action: bool
    resources: tuple[Pattern, ...]
    not_resource: bool
    tests: tuple[Test, ...]

    def applies(
        self, caller: User, action: str, resource: str, find_values: FindValues, find_variable: FindVariable
    ) -> bool:
        """Whether it speaks of this request. action: lower-case."""
        return (
            self.principals.include(caller) is not self.not_principal
            and any(pattern.matches(action, find_variable) for pattern in self.actions) is not self.not_action
            and any(pattern.matches(resource, find_variable) for pattern in self.resources) is not self.not_resource
            and all(test.holds(find_values, find_variable) for test in self.tests)
        )


class Policy(NamedTuple):
    """A whole document."""

    statements: tuple[Statement, ...]
    asks_for_existing_tags: bool
    """whether a statement depends on the tags of the object that is there"""
    asks_for_request_tags: bool


class Opinion(NamedTuple):
    """What a policy says of a request. effect None: nothing."""

    effect: Effect | None
    reason: str = ""


def evaluate_policy(policy: Policy, caller: User, permission: str, resource: str, find_values: FindValues) -> Opinion:
    """An explicit Deny, else an Allow, else nothing. resource: an ARN."""

    def find_variable(name: str) -> str | None:
        values = find_values(name)
        return values[0] if len(values) == 1 else None

    action = permission.lower()
    allowed = ""
    for number, statement in enumerate(policy.statements, 1):
        if allowed and statement.effect is Effect.ALLOW:
            continue
        if statement.applies(caller, action, resource, find_values, find_variable):
            name = f"statement {number}" + (f" ({statement.sid})" if statement.sid else "")
            if statement.effect is Effect.DENY:
                return Opinion(Effect.DENY, name)
            allowed = name
    return Opinion(Effect.ALLOW, allowed) if allowed else Opinion(None)


@lru_cache(POLICIES_REMEMBERED_MAX)
def find_policy(document: bytes) -> Policy:
    """The compiled policy of a document that was put, which is trusted to be one of its bucket."""
    return _compile(_load(document))


def parse_policy(document: bytes, bucket: str) -> Policy:
    """A document that a client puts on this bucket. MalformedPolicy."""
    policy = _compile(_load(document))
    for statement in policy.statements:
        for pattern in statement.resources:
            if not _is_of_bucket(pattern, bucket):
                raise S3Error("MalformedPolicy", "Policy has invalid resource")
    return policy


# ------------------------------------------------------------------ the document


def _load(document: bytes) -> dict[str, Any]:
    """JSON of a bounded size, without a name twice. MalformedPolicy."""
    if len(document) > POLICY_BYTES_MAX:
        raise S3Error(
            "MalformedPolicy",
            f"Normalized policy document exceeds the maximum allowed size of {POLICY_BYTES_MAX} bytes.",
        )
    if not document.lstrip().startswith(b"{"):
        raise S3Error("MalformedPolicy")
    try:
        loaded = json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise S3Error("MalformedPolicy", "This policy contains invalid Json") from None
    if not isinstance(loaded, dict):
        raise S3Error("MalformedPolicy")
    return loaded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _compile(document: dict[str, Any]) -> Policy:
    _check_fields(document, _POLICY_FIELDS)
    version = document.get("Version", _VERSIONS[0])
    if version not in _VERSIONS:
        raise S3Error("MalformedPolicy", "The policy must contain a valid version string")
    if not isinstance(document.get("Id", ""), str):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    if "Statement" not in document:
        raise _missing("Statement")
    listed = document["Statement"]
    items = listed if isinstance(listed, list) else [listed]
    if not items:
        raise S3Error("MalformedPolicy", "Could not parse the policy: Statement is empty!")
    statements = tuple(_parse_statement(item, version == WITH_VARIABLES) for item in items)
    sids = [statement.sid for statement in statements if statement.sid]
    if len(set(sids)) != len(sids):
        raise S3Error("MalformedPolicy", "Statement IDs (SID) in a single policy must be unique.")
    keys = [key.lower() for statement in statements for key in _keys(statement)]
    return Policy(
        statements,
        any(key.startswith(EXISTING_TAG) for key in keys),
        any(key.startswith(REQUEST_TAGS) for key in keys),
    )


def _keys(statement: Statement) -> Iterator[str]:
    """The condition keys that it depends on, in tests and as variables."""
    for test in statement.tests:
        yield test.key
        yield from test.variables
    for pattern in statement.resources:
        yield from pattern.variables


def _parse_statement(item: Any, with_variables: bool) -> Statement:
    if not isinstance(item, dict):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    _check_fields(item, _STATEMENT_FIELDS)
    effect = item.get("Effect")
    if effect is None:
        raise _missing("Effect")
    if effect not in ("Allow", "Deny"):
        raise S3Error("MalformedPolicy", f"Invalid effect: {str(effect)[:64]}")
    sid = item.get("Sid", "")
    if not isinstance(sid, str):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    principal, not_principal = _one_of(item, "Principal")
    if not_principal and effect == "Allow":
        raise S3Error("MalformedPolicy", "Allow with NotPrincipal is not allowed.")
    action, not_action = _one_of(item, "Action")
    resource, not_resource = _one_of(item, "Resource")
    condition = item.get("Condition", {})
    if not isinstance(condition, dict):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    return Statement(
        sid,
        Effect(effect),
        parse_principals(principal),
        not_principal,
        tuple(_parse_action(text) for text in _texts(action)),
        not_action,
        tuple(_parse_resource(text, with_variables) for text in _texts(resource)),
        not_resource,
        parse_condition(condition, with_variables),
    )


def _one_of(item: dict[str, Any], name: str) -> tuple[Any, bool]:
    """The field or its negation; exactly one of them is there. MalformedPolicy."""
    negation = f"Not{name}"
    if name in item and negation in item:
        raise S3Error("MalformedPolicy", f"Statement/policy already has instance of {name}")
    if negation in item:
        return item[negation], True
    if name not in item:
        raise _missing(name)
    return item[name], False


def _texts(one_or_several: Any) -> list[str]:
    texts = one_or_several if isinstance(one_or_several, list) else [one_or_several]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise S3Error("MalformedPolicy", "Invalid policy syntax.")
    return texts


def _parse_action(text: str) -> Pattern:
    is_pattern = "*" in text or "?" in text
    if not _ACTION.fullmatch(text) or (not is_pattern and not is_known(text)):
        raise S3Error("MalformedPolicy", "Policy has invalid action")
    return Pattern(text.lower(), wild=True, with_variables=False)


def _parse_resource(text: str, with_variables: bool) -> Pattern:
    if text != "*" and not _RESOURCE.fullmatch(text):
        raise S3Error("MalformedPolicy", "Policy has invalid resource")
    return Pattern(text, wild=True, with_variables=with_variables)


def _is_of_bucket(pattern: Pattern, bucket: str) -> bool:
    """Whether a resource can be this bucket or an object of it."""
    match = _RESOURCE.fullmatch(pattern.text)
    if match is None:
        return pattern.text == "*"
    name = match[1].partition("/")[0]
    return "${" in name or Pattern(name, wild=True, with_variables=False).matches(bucket, lambda _: None)


def _check_fields(item: dict[str, Any], known: frozenset[str]) -> None:
    unknown = next((name for name in item if name not in known), None)
    if unknown is not None:
        raise S3Error("MalformedPolicy", f"Unknown field {unknown[:64]}")


def _missing(field: str) -> S3Error:
    return S3Error("MalformedPolicy", f"Missing required field {field}")
