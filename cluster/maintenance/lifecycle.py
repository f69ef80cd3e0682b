"""PURE. What a lifecycle configuration does to the versions of a page of a listing, and to open uploads.

Versions come as list_versions gives them: by key, the newest of a key first. What must be known of a key when a page
ends inside it is carried to the next one, so that a key with any number of versions costs no more memory than a page.

    current version     past its Expiration: a delete as a client's, which in a versioned bucket makes a marker
    current marker      with no other version of its key: removed by ExpiredObjectDeleteMarker, or past its Expiration
    noncurrent ones     past NoncurrentDays since they were replaced, but for the newest NewerNoncurrentVersions

Tags are in no listing. A version that only a rule with tags would end is asked for instead (`wanting_tags`), and
decided when the page is planned again with them. Source: Amazon S3 User Guide, "Managing the lifecycle of objects".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cluster.maintenance.lifecycle_rules import (
    CALENDAR_DAY_S,
    LifecycleRule,
    covers,
    due_ms,
    expires_ms,
    has_tags,
)
from storage.base.ids import NULL_VERSION_ID
from storage.metadata.commands import Conditions, DeleteTarget
from storage.metadata.interface import VersionEntry
from storage.model import Upload

VersionName = tuple[bytes, str]
"""(object key, version id)"""


class Ending(enum.Enum):
    """What becomes of a version."""

    EXPIRED = "expired"
    """deleted as the current one"""
    NONCURRENT = "noncurrent"
    """removed for good"""
    MARKER = "marker"
    """the last marker of a key, removed"""


class Expiry(NamedTuple):
    """One version that is to end."""

    entry: VersionEntry
    ending: Ending
    rule_id: str


class KeyState(NamedTuple):
    """What the walk remembers of the key that it is in."""

    object_key: bytes = b""
    newer_ms: int | None = None
    """when the version before was made, which is when the next one became noncurrent"""
    noncurrent: int = 0
    """noncurrent versions seen; markers do not count, since nothing can be read back from one"""
    marker: VersionEntry | None = None
    """a current marker whose key may have no other version"""


class ExpiryPlan(NamedTuple):
    """Of one page."""

    expiries: list[Expiry]
    wanting_tags: list[VersionName]
    state: KeyState


def plan_expiry(
    rules: Sequence[LifecycleRule],
    entries: Sequence[VersionEntry],
    state: KeyState,
    now_ms: int,
    *,
    is_last: bool,
    tags: Mapping[VersionName, Mapping[str, str]],
    day_s: float = CALENDAR_DAY_S,
) -> ExpiryPlan:
    """One page, after what `state` says of the key that it begins in. is_last: no page follows.

    tags: of versions that were asked for; of one that is not there any more, nothing.
    """
    expiries: list[Expiry] = []
    wanting: list[VersionName] = []
    for entry in entries:
        if entry.object_key != state.object_key:
            expiries += _plan_lone_marker(rules, state.marker, now_ms, day_s)
            state = KeyState(entry.object_key)
        elif state.marker is not None:
            state = state._replace(marker=None)
        due = _find_due(rules, entry, state, now_ms, day_s)
        chosen = _choose(due, tags.get((entry.object_key, entry.version_id)))
        if chosen is not None:
            ending = Ending.EXPIRED if entry.is_latest else Ending.NONCURRENT
            expiries.append(Expiry(entry, ending, chosen.rule_id))
        elif due and (entry.object_key, entry.version_id) not in tags:
            wanting.append((entry.object_key, entry.version_id))
        counted = not entry.is_latest and not entry.is_marker
        marker = entry if entry.is_latest and entry.is_marker else None
        state = KeyState(entry.object_key, entry.last_modified_ms, state.noncurrent + counted, marker)
    if is_last:
        expiries += _plan_lone_marker(rules, state.marker, now_ms, day_s)
        state = KeyState()
    return ExpiryPlan(expiries, wanting, state)


def plan_aborts(
    rules: Sequence[LifecycleRule], uploads: Iterable[Upload], now_ms: int, day_s: float = CALENDAR_DAY_S
) -> list[Upload]:
    """The uploads that were open for longer than a rule lets them."""
    aborting = [rule for rule in rules if rule.enabled and rule.abort_upload_days]
    return [
        upload
        for upload in uploads
        if any(
            upload.object_key.startswith(rule.prefix_bytes)
            and due_ms(upload.initiated_ms, rule.abort_upload_days, day_s) <= now_ms
            for rule in aborting
        )
    ]


def make_target(expiry: Expiry) -> DeleteTarget:
    """The delete, on condition that what is deleted is what was planned: a version that was put meanwhile stays.

    An id names a version for ever, but `null` whatever is the null version now, and no id whatever is current. A
    noncurrent version stays if it has become the current one, because what was above it is gone.
    """
    entry = expiry.entry
    last_modified_s = entry.last_modified_ms // 1000
    is_as_planned = Conditions(if_match=entry.etag, size=entry.size, last_modified_s=last_modified_s)
    if entry.is_marker:
        is_as_planned = Conditions(if_none_match="*", last_modified_s=last_modified_s)
    if expiry.ending is Ending.EXPIRED:
        return DeleteTarget(entry.object_key, None, is_as_planned)
    conditions = is_as_planned if entry.version_id == NULL_VERSION_ID else Conditions()
    return DeleteTarget(entry.object_key, entry.version_id, conditions, expiry.ending is Ending.NONCURRENT)


def choose_prefixes(rules: Iterable[LifecycleRule], *, of_uploads: bool) -> tuple[bytes, ...]:
    """The fewest prefixes under which everything lies that the rules speak of, in order: of uploads, or of versions."""
    wanted = sorted(
        {
            rule.prefix_bytes
            for rule in rules
            if rule.enabled and (rule.abort_upload_days if of_uploads else _ends_versions(rule))
        }
    )
    chosen: list[bytes] = []
    for prefix in wanted:
        if not chosen or not prefix.startswith(chosen[-1]):
            chosen.append(prefix)
    return tuple(chosen)


def _ends_versions(rule: LifecycleRule) -> bool:
    return bool(
        rule.expiration_days or rule.expiration_date_ms is not None or rule.expired_marker or rule.noncurrent_days
    )


def _find_due(
    rules: Sequence[LifecycleRule], entry: VersionEntry, state: KeyState, now_ms: int, day_s: float
) -> list[LifecycleRule]:
    """The rules that end this version now, were its tags those that they want. A current marker waits for its key."""
    if entry.is_latest and entry.is_marker:
        return []
    found = []
    for rule in rules:
        if not covers(rule, entry.object_key, entry.size) or (entry.is_marker and not rule.is_of_all_states):
            continue
        if entry.is_latest:
            at_ms = expires_ms(rule, entry.last_modified_ms, day_s)
        elif not rule.noncurrent_days or state.newer_ms is None or state.noncurrent < rule.newer_noncurrent_versions:
            at_ms = None
        else:
            at_ms = due_ms(state.newer_ms, rule.noncurrent_days, day_s)
        if at_ms is not None and at_ms <= now_ms:
            found.append(rule)
    return found


def _choose(due: Sequence[LifecycleRule], tags: Mapping[str, str] | None) -> LifecycleRule | None:
    """The first rule that ends a version with these tags; None: they are not known."""
    return next((rule for rule in due if not rule.tags or (tags is not None and has_tags(rule, tags))), None)


def _plan_lone_marker(
    rules: Sequence[LifecycleRule], marker: VersionEntry | None, now_ms: int, day_s: float
) -> list[Expiry]:
    """A marker under which nothing is left."""
    if marker is None:
        return []
    for rule in rules:
        if not rule.is_of_all_states or not covers(rule, marker.object_key, 0):
            continue
        at_ms = expires_ms(rule, marker.last_modified_ms, day_s)
        if rule.expired_marker or (at_ms is not None and at_ms <= now_ms):
            return [Expiry(marker, Ending.MARKER, rule.rule_id)]
    return []
