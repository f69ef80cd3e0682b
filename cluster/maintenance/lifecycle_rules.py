"""PURE. Lifecycle rules as the bucket's `lifecycle` setting holds them, and what one rule says of one version.

The setting is JSON, so that the worker needs no XML. Source: Amazon S3 User Guide, "Lifecycle configuration elements"
and "Expiring objects". A number of days counts from the moment the state began (a version's creation, or its becoming
noncurrent), and ends at the next midnight UTC; where a day is not 86,400 s long, as in tests, nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

LIFECYCLE_SETTING = "lifecycle"
"""the name of the bucket setting"""
CALENDAR_DAY_S = 86_400.0

_DAY_MS = 86_400_000
_DOCUMENTS_REMEMBERED = 256


class LifecycleRule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One rule. 0 days and None mean that the rule does not say."""

    rule_id: str
    enabled: bool = True
    prefix: str | None = None
    """None as ``: every key"""
    has_filter: bool = True
    """written with a Filter; else in the old form, with a Prefix of the rule's own"""
    tags: dict[str, str] = {}
    """all of them must be on the object"""
    size_greater_than: int | None = None
    size_less_than: int | None = None
    expiration_days: int = 0
    expiration_date_ms: int | None = None
    expired_marker: bool | None = None
    """ExpiredObjectDeleteMarker, as it was given"""
    noncurrent_days: int = 0
    newer_noncurrent_versions: int = 0
    """this many newer noncurrent versions of a key are kept whatever their age"""
    abort_upload_days: int = 0

    @property
    def prefix_bytes(self) -> bytes:
        """As keys are compared."""
        return (self.prefix or "").encode()

    @property
    def is_of_all_states(self) -> bool:
        """Whether the rule speaks of delete markers too, which have neither tags nor a size."""
        return not self.tags and self.size_greater_than is None and self.size_less_than is None


class Lifecycle(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The whole setting. minimum_size_mode: x-amz-transition-default-minimum-object-size, given back as it was put."""

    rules: tuple[LifecycleRule, ...]
    minimum_size_mode: str = ""


def encode_lifecycle(lifecycle: Lifecycle) -> bytes:
    """For the setting."""
    return msgspec.json.encode(lifecycle)


@lru_cache(maxsize=_DOCUMENTS_REMEMBERED)
def read_lifecycle(stored: bytes) -> Lifecycle:
    """The setting, decoded once for each document. msgspec.MsgspecError for what is none."""
    return msgspec.json.decode(stored, type=Lifecycle)


def due_ms(since_ms: int, days: int, day_s: float = CALENDAR_DAY_S) -> int:
    """When a state that began then has lasted so many days: the midnight after that, or the moment itself where a day
    has another length than the calendar's."""
    if day_s != CALENDAR_DAY_S:
        return since_ms + round(days * day_s * 1000)
    return ((since_ms + days * _DAY_MS) // _DAY_MS + 1) * _DAY_MS


def expires_ms(rule: LifecycleRule, created_ms: int, day_s: float = CALENDAR_DAY_S) -> int | None:
    """When the rule's Expiration ends a version as the current one; None when it never does."""
    if rule.expiration_days:
        return due_ms(created_ms, rule.expiration_days, day_s)
    return rule.expiration_date_ms


def covers(rule: LifecycleRule, object_key: bytes, size: int) -> bool:
    """Whether the rule is in force for such a version, its tags aside."""
    return (
        rule.enabled
        and object_key.startswith(rule.prefix_bytes)
        and (rule.size_greater_than is None or size > rule.size_greater_than)
        and (rule.size_less_than is None or size < rule.size_less_than)
    )


def has_tags(rule: LifecycleRule, tags: Mapping[str, str]) -> bool:
    """Whether an object with these tags is one that the rule speaks of."""
    return all(tags.get(name) == text for name, text in rule.tags.items())


def choose_expiration(
    lifecycle: Lifecycle, object_key: bytes, size: int, tags: Mapping[str, str], created_ms: int
) -> tuple[int, str] | None:
    """(when, by which rule's id) a current version expires, by the calendar; the earliest of several."""
    found: tuple[int, str] | None = None
    for rule in lifecycle.rules:
        if covers(rule, object_key, size) and has_tags(rule, tags):
            at_ms = expires_ms(rule, created_ms)
            if at_ms is not None and (found is None or at_ms < found[0]):
                found = at_ms, rule.rule_id
    return found


def choose_abortion(lifecycle: Lifecycle, object_key: bytes, initiated_ms: int) -> tuple[int, str] | None:
    """(when, by which rule's id) an upload begun then is aborted, by the calendar; the earliest of several."""
    found: tuple[int, str] | None = None
    for rule in lifecycle.rules:
        if rule.enabled and rule.abort_upload_days and object_key.startswith(rule.prefix_bytes):
            at_ms = due_ms(initiated_ms, rule.abort_upload_days)
            if found is None or at_ms < found[0]:
                found = at_ms, rule.rule_id
    return found
