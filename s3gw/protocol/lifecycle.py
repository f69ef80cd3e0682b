"""PURE. Lifecycle configurations as clients send them, checked as AWS checks them.

Source: Amazon S3 API Reference, PutBucketLifecycleConfiguration; User Guide, "Lifecycle configuration
elements". The record that they are kept as, and what it means, is cluster's
(cluster/maintenance/lifecycle_rules.py).

Two things differ from AWS, both on purpose: transitions are refused, as there is one kind of storage and a rule that
does nothing would be a false promise; and a Filter may name several conditions without an And, all of which must hold.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

import msgspec

from cluster.maintenance.lifecycle_rules import Lifecycle, LifecycleRule
from s3gw.protocol.errors import S3Error
from s3gw.protocol.tags import parse_tag_elements
from s3gw.protocol.xml import Element, parse_xml

RULES_MAX = 1_000
RULE_ID_CHARACTERS_MAX = 255
PREFIX_BYTES_MAX = 1_024
NEWER_VERSIONS_MAX = 100
SIZE_MAX = 50 << 40
MINIMUM_SIZE_MODES = ("all_storage_classes_128K", "varies_by_storage_class")
"""of x-amz-transition-default-minimum-object-size; the first is AWS's default"""

_DAYS_MAX = (1 << 31) - 1
_DAY_MS = 86_400_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{5,15}(Z|[+-][0-9]{2}:?[0-9]{2})?)?\Z")
_ID_DIGITS = 24
_RULE_ELEMENTS = frozenset(
    {
        "ID",
        "Prefix",
        "Status",
        "Filter",
        "Expiration",
        "NoncurrentVersionExpiration",
        "AbortIncompleteMultipartUpload",
        "Transition",
        "NoncurrentVersionTransition",
    }
)
_FILTER_ELEMENTS = frozenset({"Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan"})
_EXPIRATION_ELEMENTS = frozenset({"Days", "Date", "ExpiredObjectDeleteMarker"})


def parse_lifecycle(body: bytes, minimum_size_mode: str = "") -> Lifecycle:
    """A LifecycleConfiguration. MalformedXML, InvalidArgument, InvalidRequest, NotImplemented (transitions).

    minimum_size_mode: the header x-amz-transition-default-minimum-object-size, `` without it.
    """
    if minimum_size_mode and minimum_size_mode not in MINIMUM_SIZE_MODES:
        raise S3Error(
            "InvalidArgument",
            ArgumentName="x-amz-transition-default-minimum-object-size",
            ArgumentValue=minimum_size_mode,
        )
    root = parse_xml(body, "LifecycleConfiguration")
    if not root.children or any(child.name != "Rule" for child in root.children):
        raise S3Error("MalformedXML")
    if len(root.children) > RULES_MAX:
        raise S3Error("InvalidRequest", f"The number of lifecycle rules must not exceed {RULES_MAX} rules")
    rules = tuple(_read_rule(child) for child in root.children)
    named = [rule.rule_id for rule in rules if rule.rule_id]
    if len(set(named)) != len(named):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    return Lifecycle(_name_rules(rules, body), minimum_size_mode or MINIMUM_SIZE_MODES[0])


def _name_rules(rules: tuple[LifecycleRule, ...], body: bytes) -> tuple[LifecycleRule, ...]:
    """Every rule has an id; those without one get the digest of where they stand, which is no secret and no choice."""
    seed = hashlib.sha256(body).digest()
    return tuple(
        rule
        if rule.rule_id
        else msgspec.structs.replace(rule, rule_id=hashlib.sha256(seed + b"%d" % place).hexdigest()[:_ID_DIGITS])
        for place, rule in enumerate(rules)
    )


def _read_rule(rule: Element) -> LifecycleRule:
    _require_elements(rule, _RULE_ELEMENTS)
    rule_id = rule.child_text("ID") or ""
    if len(rule_id) > RULE_ID_CHARACTERS_MAX:
        raise S3Error("InvalidArgument", f"ID length should not exceed allowed limit of {RULE_ID_CHARACTERS_MAX}")
    status = rule.child_text("Status")
    if status not in ("Enabled", "Disabled"):
        raise S3Error("MalformedXML")
    old_prefix, filtered = rule.child_text("Prefix"), rule.child("Filter")
    if (old_prefix is None) == (filtered is None):
        raise S3Error("MalformedXML")
    fields: dict[str, object] = (
        {"prefix": _check_prefix(old_prefix or "")} if filtered is None else _read_filter(filtered)
    )
    actions = _read_actions(rule)
    _check_actions(fields, actions)
    return LifecycleRule(rule_id, status == "Enabled", has_filter=filtered is not None, **fields, **actions)  # type: ignore[arg-type]


def _read_filter(found: Element) -> dict[str, object]:
    """The conditions, whether they stand alone, together, or in an And; two prefixes are the longer one."""
    _require_elements(found, _FILTER_ELEMENTS | {"And"})
    groups = [[child for child in found.children if child.name != "And"]]
    both = found.child("And")
    if both is not None:
        if not both.children or any(child.name not in _FILTER_ELEMENTS for child in both.children):
            raise S3Error("MalformedXML")
        groups.append(both.children)
    fields: dict[str, object] = {}
    for group in groups:
        for child in group:
            if child.name == "Prefix":
                fields["prefix"] = _join_prefixes(fields.get("prefix"), _check_prefix(child.text))
            elif child.name != "Tag":
                name = "size_greater_than" if child.name == "ObjectSizeGreaterThan" else "size_less_than"
                if name in fields:
                    raise S3Error("MalformedXML")
                fields[name] = _read_size(child)
    tags = parse_tag_elements([child for group in groups for child in group if child.name == "Tag"])
    _check_sizes(fields)
    return fields | ({"tags": tags} if tags else {})


def _join_prefixes(first: object, second: str) -> str:
    if not isinstance(first, str):
        return second
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    if not longer.startswith(shorter):
        raise S3Error("MalformedXML")
    return longer


def _check_prefix(prefix: str) -> str:
    if len(prefix.encode()) > PREFIX_BYTES_MAX:
        raise S3Error("InvalidRequest", f"The maximum size of a prefix is {PREFIX_BYTES_MAX}.")
    return prefix


def _check_sizes(fields: dict[str, object]) -> None:
    above, below = fields.get("size_greater_than"), fields.get("size_less_than")
    if isinstance(above, int) and isinstance(below, int) and above >= below:
        raise S3Error("InvalidRequest", "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'.")


def _read_actions(rule: Element) -> dict[str, object]:
    """What the rule does. Transitions are checked as far as a date goes, and then refused."""
    actions: dict[str, object] = {}
    expiration = rule.child("Expiration")
    if expiration is not None:
        actions |= _read_expiration(expiration)
    noncurrent = rule.child("NoncurrentVersionExpiration")
    if noncurrent is not None:
        _require_elements(noncurrent, frozenset({"NoncurrentDays", "NewerNoncurrentVersions"}))
        actions["noncurrent_days"] = _read_positive(noncurrent, "NoncurrentDays")
        if noncurrent.child("NewerNoncurrentVersions") is not None:
            actions["newer_noncurrent_versions"] = _read_positive(
                noncurrent, "NewerNoncurrentVersions", NEWER_VERSIONS_MAX
            )
    abort = rule.child("AbortIncompleteMultipartUpload")
    if abort is not None:
        _require_elements(abort, frozenset({"DaysAfterInitiation"}))
        actions["abort_upload_days"] = _read_positive(abort, "DaysAfterInitiation")
    for transition in (*rule.all("Transition"), *rule.all("NoncurrentVersionTransition")):
        date = transition.child_text("Date")
        if date is not None:
            _read_date(date)
        raise S3Error("NotImplemented", "Transitions are not implemented: all objects are in one kind of storage")
    if not actions:
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule")
    return actions


def _read_expiration(expiration: Element) -> dict[str, object]:
    """Exactly one of its three elements."""
    _require_elements(expiration, _EXPIRATION_ELEMENTS)
    if len(expiration.children) != 1:
        raise S3Error("MalformedXML")
    found = expiration.children[0]
    if found.name == "Days":
        return {"expiration_days": _read_positive(expiration, "Days")}
    if found.name == "Date":
        return {"expiration_date_ms": _read_date(found.text)}
    if found.text not in ("true", "false"):
        raise S3Error("MalformedXML")
    return {"expired_marker": found.text == "true"}


def _check_actions(fields: dict[str, object], actions: dict[str, object]) -> None:
    """What has neither tags nor a size cannot be filtered by them."""
    for name, action in (
        ("expired_marker", "ExpiredObjectDeleteMarker"),
        ("abort_upload_days", "AbortIncompleteMultipartUpload"),
    ):
        if name not in actions:
            continue
        if "tags" in fields:
            raise S3Error("InvalidRequest", f"{action} cannot be specified with Tags.")
        if "size_greater_than" in fields or "size_less_than" in fields:
            raise S3Error("InvalidRequest", f"{action} cannot be specified with object size.")


def _read_positive(action: Element, name: str, value_max: int = _DAYS_MAX) -> int:
    """A required whole number above 0. MalformedXML for what is no number, InvalidArgument for another one."""
    text = (action.child_text(name) or "").strip()
    if not _INTEGER.match(text):
        raise S3Error("MalformedXML")
    if int(text) < 1:
        raise S3Error("InvalidArgument", f"'{name}' for {action.name} action must be a positive integer")
    if int(text) > value_max:
        raise S3Error("InvalidArgument", f"'{name}' for {action.name} action must not be greater than {value_max}")
    return int(text)


def _read_size(found: Element) -> int:
    text = found.text.strip()
    if not _INTEGER.match(text):
        raise S3Error("MalformedXML")
    least = 0 if found.name == "ObjectSizeGreaterThan" else 1
    if not least <= int(text) <= SIZE_MAX:
        raise S3Error("InvalidRequest", f"'{found.name}' must be between {least} and {SIZE_MAX}.")
    return int(text)


def _read_date(text: str) -> int:
    """ISO 8601 at midnight UTC → milliseconds since the epoch."""
    text = text.strip()
    try:
        if not _DATE.match(text):
            raise ValueError
        at = datetime.fromisoformat(text)
        at_ms = round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise S3Error("MalformedXML") from None
    if at_ms % _DAY_MS:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT")
    return at_ms


def _require_elements(found: Element, allowed: frozenset[str]) -> None:
    if any(child.name not in allowed for child in found.children):
        raise S3Error("MalformedXML")
