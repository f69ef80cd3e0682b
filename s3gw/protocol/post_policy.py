"""PURE. The policy of a browser's form: what its signer allows the form to say.

    policy = parse_post_policy(fields["policy"])
    evaluate_post_policy(policy, fields, bucket, now_s)      fields: by lower-case name, variables expanded
    check_post_length(policy, size_bytes)

Source: Amazon S3 API Reference, "POST Policy"; the sentences of the errors are those AWS answers with.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3gw.protocol.errors import S3Error

POLICY_CONDITIONS_MAX = 256
_OPERATORS = ("eq", "starts-with")
_LENGTH_RANGE = "content-length-range"
_SIZE_MAX = 1 << 63
_EXPIRATION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_MORE_ESCAPES = {"$": "$", "v": "\\u000b"}
"""beside those of JSON"""

_EXEMPT = frozenset({"awsaccesskeyid", "signature", "x-amz-signature", "policy", "file"})
_EXEMPT_PREFIXES = ("x-ignore-", "x-amz-checksum-")
"""the checksums only ever refuse bytes that the sender did not mean, so no signer has to foresee them"""


class FieldCondition(NamedTuple):
    """operator: `eq` or `starts-with`. name: of the field, lower-case."""

    operator: str
    name: str
    text: str

    def __str__(self) -> str:
        return json.dumps([self.operator, f"${self.name}", self.text], ensure_ascii=False)


class PostPolicy(NamedTuple):
    """A parsed policy document. length_min, length_max: of the file, in bytes, both inclusive."""

    expiration_s: float
    conditions: tuple[FieldCondition, ...]
    length_min: int = 0
    length_max: int = _SIZE_MAX


def parse_post_policy(encoded: str) -> PostPolicy:
    """base64 of the JSON document → the policy. InvalidPolicyDocument."""
    try:
        text = binascii.a2b_base64("".join(encoded.split()), strict_mode=True).decode()
    except ValueError:
        raise _invalid("Invalid Base64 encoding.") from None
    try:
        document = json.loads(_ESCAPE.sub(_unescape, text))
    except (ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    for name in document:
        if name not in ("expiration", "conditions"):
            raise _invalid(f"Unexpected: '{str(name)[:64]}'")
    if "expiration" not in document:
        raise _invalid("Policy missing expiration.")
    if "conditions" not in document:
        raise _invalid("Policy missing conditions.")
    return _parse_conditions(_parse_expiration(document["expiration"]), document["conditions"])


def evaluate_post_policy(policy: PostPolicy, fields: Mapping[str, str], bucket: str, now_s: float) -> None:
    """AccessDenied, which names the condition that failed, unless the form meets every condition in time and has no
    field that none speaks of."""
    if now_s > policy.expiration_s:
        raise _denied("Policy expired.")
    said = {**fields, "bucket": bucket}
    for condition in policy.conditions:
        if not _holds(condition, said.get(condition.name, "")):
            raise _denied(f"Policy Condition failed: {condition}")
    foreseen = {condition.name for condition in policy.conditions}
    extra = sorted(name for name in said if name not in foreseen and not _is_exempt(name))
    if extra:
        raise _denied(f"Extra input fields: {', '.join(extra)[:256]}")


def check_post_length(policy: PostPolicy, size_bytes_min: int, size_bytes_max: int) -> None:
    """EntityTooLarge or EntityTooSmall when no size between the two (both inclusive) is allowed."""
    if size_bytes_min > policy.length_max:
        raise S3Error("EntityTooLarge", ProposedSize=str(size_bytes_min), MaxSizeAllowed=str(policy.length_max))
    if size_bytes_max < policy.length_min:
        raise S3Error("EntityTooSmall", ProposedSize=str(size_bytes_max), MinSizeAllowed=str(policy.length_min))


def _parse_expiration(text: object) -> float:
    if isinstance(text, str) and _EXPIRATION.fullmatch(text):
        whole, _, fraction = text[:-1].partition(".")
        try:
            moment = datetime.fromisoformat(whole).replace(tzinfo=UTC)
        except ValueError:
            pass
        else:
            return moment.timestamp() + float(f"0.{fraction or 0}")
    raise _invalid(f"Invalid 'expiration' value: '{str(text)[:64]}'")


def _parse_conditions(expiration_s: float, listed: object) -> PostPolicy:
    if not isinstance(listed, list):
        raise _invalid("Invalid 'conditions' value: must be a List.")
    if not listed:
        raise _invalid("Policy missing conditions.")
    if len(listed) > POLICY_CONDITIONS_MAX:
        raise _invalid("Too many conditions.")
    conditions: list[FieldCondition] = []
    length_min, length_max = 0, _SIZE_MAX
    for item in listed:
        if isinstance(item, dict):
            conditions.append(_parse_simple(item))
        elif isinstance(item, list) and item and isinstance(item[0], str) and item[0].lower() == _LENGTH_RANGE:
            low, high = _parse_length_range(item)
            length_min, length_max = max(length_min, low), min(length_max, high)
        else:
            conditions.append(_parse_listed(item))
    return PostPolicy(expiration_s, tuple(conditions), length_min, length_max)


def _parse_simple(item: dict[str, Any]) -> FieldCondition:
    """`{"acl": "private"}`"""
    if len(item) != 1:
        raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
    ((name, text),) = item.items()
    if not isinstance(text, str):
        raise _invalid("Invalid Simple-Condition: value must be a string.")
    return FieldCondition("eq", name.lower(), text)


def _parse_listed(item: object) -> FieldCondition:
    """`["starts-with", "$key", "user/"]`"""
    if not isinstance(item, list) or len(item) != 3 or not all(isinstance(word, str) for word in item):
        raise _invalid("Invalid Condition: a list of an operation, a field and a value is expected.")
    operator, field, text = item
    if operator.lower() not in _OPERATORS:
        raise _invalid(f"Invalid Condition: unknown operation '{operator[:64]}'.")
    if not field.startswith("$") or len(field) < 2:
        raise _invalid(f"Invalid Condition: '{field[:64]}' does not name a field.")
    return FieldCondition(operator.lower(), field[1:].lower(), text)


def _parse_length_range(item: list[Any]) -> tuple[int, int]:
    if len(item) != 3:
        raise _invalid("Invalid content-length-range: wrong number of arguments.")
    bounds = [_parse_size(word) for word in item[1:]]
    return bounds[0], bounds[1]


def _parse_size(word: object) -> int:
    """A number, or digits in a string: both are in use."""
    if isinstance(word, str) and word.isascii() and word.isdigit() and len(word) <= 19:
        word = int(word)
    if isinstance(word, bool) or not isinstance(word, int) or not 0 <= word <= _SIZE_MAX:
        raise _invalid("Invalid content-length-range: arguments must be non-negative numbers.")
    return word


def _holds(condition: FieldCondition, text: str) -> bool:
    if condition.operator == "eq":
        return text == condition.text
    if condition.name == "content-type" and "," in text:
        # A list of types: each one has to meet the condition.
        return all(word.strip().startswith(condition.text) for word in text.split(","))
    return text.startswith(condition.text)


def _is_exempt(name: str) -> bool:
    return name in _EXEMPT or name.startswith(_EXEMPT_PREFIXES)


def _unescape(match: re.Match[str]) -> str:
    return _MORE_ESCAPES.get(match[1], match[0])


def _invalid(reason: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {reason}")


def _denied(reason: str) -> S3Error:
    return S3Error("AccessDenied", f"Invalid according to Policy: {reason}")
