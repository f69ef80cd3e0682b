"""The lifecycle planner against a plain reading of the rules, however a listing is cut into pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.maintenance.lifecycle import (
    Ending,
    KeyState,
    VersionName,
    choose_prefixes,
    make_target,
    plan_aborts,
    plan_expiry,
)
from cluster.maintenance.lifecycle_rules import (
    Lifecycle,
    LifecycleRule,
    choose_abortion,
    choose_expiration,
    due_ms,
    encode_lifecycle,
    read_lifecycle,
)
from storage.base.ids import format_version_id
from storage.metadata.commands import Conditions, DeleteTarget
from storage.metadata.interface import VersionEntry
from storage.model import Attributes, Upload

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS
KEYS = (b"a", b"a/1", b"a/2", b"b")
Tags = dict[VersionName, dict[str, str]]
Outcome = set[tuple[bytes, str, Ending]]

rules = st.builds(
    LifecycleRule,
    st.just("rule"),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None, "", "a", "a/", "b"]),
    tags=st.sampled_from([{}, {}, {"x": "1"}, {"x": "1", "y": "2"}]),
    size_greater_than=st.sampled_from([None, None, 5]),
    size_less_than=st.sampled_from([None, None, 15]),
    expiration_days=st.integers(0, 3),
    expiration_date_ms=st.sampled_from([None, None, NOW_MS - DAY_MS, NOW_MS + DAY_MS]),
    expired_marker=st.sampled_from([None, None, True, False]),
    noncurrent_days=st.integers(0, 3),
    newer_noncurrent_versions=st.integers(0, 2),
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[VersionEntry], Tags]:
    """A listing of a bucket: of each key, some versions and markers, the newest first."""
    entries: list[VersionEntry] = []
    tags: Tags = {}
    for object_key in KEYS:
        times = sorted(draw(st.lists(st.integers(NOW_MS - 4 * DAY_MS, NOW_MS), max_size=4)), reverse=True)
        for place, at_ms in enumerate(times):
            is_marker = draw(st.booleans())
            size = 0 if is_marker else draw(st.sampled_from([0, 5, 10, 15]))
            version_id = format_version_id(len(times) - place, bytes(8))
            entry = VersionEntry(
                object_key, version_id, place == 0, is_marker, size, "e", at_ms, "STANDARD", "o", "", ""
            )
            entries.append(entry)
            if not is_marker:
                tags[object_key, version_id] = draw(st.sampled_from([{}, {"x": "1"}, {"x": "1", "y": "2", "z": ""}]))
    return entries, tags


def plan_pages(
    asked: Sequence[LifecycleRule], pages: Sequence[Sequence[VersionEntry]], tags: Tags, now_ms: int
) -> tuple[Outcome, set[VersionName]]:
    """What the planner ends over all pages, and whose tags it asked for."""
    ended: Outcome = set()
    wanted: set[VersionName] = set()
    state = KeyState()
    for number, page in enumerate(pages):
        is_last = number == len(pages) - 1
        plan = plan_expiry(asked, page, state, now_ms, is_last=is_last, tags={})
        if plan.wanting_tags:
            wanted.update(plan.wanting_tags)
            known = {name: tags[name] for name in plan.wanting_tags}
            plan = plan_expiry(asked, page, state, now_ms, is_last=is_last, tags=known)
            assert not plan.wanting_tags
        ended.update((it.entry.object_key, it.entry.version_id, it.ending) for it in plan.expiries)
        state = plan.state
    return ended, wanted


def ends(rule: LifecycleRule, versions: Sequence[VersionEntry], place: int, tags: Mapping[str, str]) -> bool:
    """Whether a rule ends the version at this place of its key's history, straight from AWS's sentences."""
    entry = versions[place]
    unfiltered = not rule.tags and rule.size_greater_than is None and rule.size_less_than is None
    if not rule.enabled or not entry.object_key.startswith((rule.prefix or "").encode()):
        return False
    if entry.is_marker and not unfiltered:
        return False
    if any(tags.get(name) != text for name, text in rule.tags.items()):
        return False
    if rule.size_greater_than is not None and entry.size <= rule.size_greater_than:
        return False
    if rule.size_less_than is not None and entry.size >= rule.size_less_than:
        return False
    if place:
        since_ms = versions[place - 1].last_modified_ms
        newer = sum(not other.is_marker for other in versions[1:place])
        return (
            rule.noncurrent_days > 0
            and newer >= rule.newer_noncurrent_versions
            and due_ms(since_ms, rule.noncurrent_days) <= NOW_MS
        )
    if entry.is_marker and len(versions) > 1:
        return False
    if entry.is_marker and rule.expired_marker:
        return True
    if rule.expiration_days:
        return due_ms(entry.last_modified_ms, rule.expiration_days) <= NOW_MS
    return rule.expiration_date_ms is not None and rule.expiration_date_ms <= NOW_MS


def model(asked: Sequence[LifecycleRule], entries: Sequence[VersionEntry], tags: Tags) -> Outcome:
    """Every version that some rule ends."""
    ended: Outcome = set()
    for object_key, group in groupby(entries, lambda entry: entry.object_key):
        versions = list(group)
        for place, entry in enumerate(versions):
            of_entry = tags.get((object_key, entry.version_id), {})
            if any(ends(rule, versions, place, of_entry) for rule in asked):
                ending = Ending.NONCURRENT if place else Ending.MARKER if entry.is_marker else Ending.EXPIRED
                ended.add((object_key, entry.version_id, ending))
    return ended


@given(st.lists(rules, min_size=1, max_size=3), histories(), st.sets(st.integers(0, 16), max_size=6))
def test_any_rules_over_any_pages(
    asked: list[LifecycleRule], history: tuple[list[VersionEntry], Tags], cuts: set[int]
) -> None:
    """The same versions end as by the plain reading, wherever pages are cut; tags are asked for where they count."""
    entries, tags = history
    edges = [0, *sorted(cut for cut in cuts if cut < len(entries)), len(entries)]
    pages = [entries[start:end] for start, end in pairwise(edges)]
    ended, wanted = plan_pages(asked, pages, tags, NOW_MS)
    assert ended == model(asked, entries, tags)
    if not any(rule.tags for rule in asked):
        assert not wanted


@given(st.lists(rules, max_size=4), histories())
def test_the_prefixes_hold_all_that_ends(asked: list[LifecycleRule], history: tuple[list[VersionEntry], Tags]) -> None:
    """Nothing ends outside of them, and none lies within another one."""
    prefixes = choose_prefixes(asked, of_uploads=False)
    assert all(not one.startswith(other) for one in prefixes for other in prefixes if one is not other)
    assert all(object_key.startswith(prefixes) for object_key, _, _ in model(asked, *history))


def test_prefixes_of_uploads() -> None:
    """Only of rules that abort."""
    asked = [
        LifecycleRule("1", prefix="logs/", abort_upload_days=1),
        LifecycleRule("2", prefix="logs/old/", abort_upload_days=9),
        LifecycleRule("3", prefix="other", expiration_days=1),
        LifecycleRule("4", enabled=False, abort_upload_days=1),
    ]
    assert choose_prefixes(asked, of_uploads=True) == (b"logs/",)
    assert choose_prefixes(asked, of_uploads=False) == (b"other",)


@pytest.mark.parametrize(
    ("since_ms", "days", "expected_ms"),
    [
        (5 * DAY_MS + 1, 1, 7 * DAY_MS),
        (6 * DAY_MS - 1, 1, 7 * DAY_MS),
        (5 * DAY_MS, 1, 7 * DAY_MS),
        (5 * DAY_MS + 1, 30, 36 * DAY_MS),
    ],
)
def test_days_end_at_the_next_midnight(since_ms: int, days: int, expected_ms: int) -> None:
    """Never before the days are over, and at most a day after."""
    assert due_ms(since_ms, days) == expected_ms
    assert due_ms(since_ms, days, 2.0) == since_ms + days * 2_000


def test_the_earliest_rule_is_told() -> None:
    """Of those that are in force for the object."""
    lifecycle = Lifecycle(
        (
            LifecycleRule("late", expiration_days=9),
            LifecycleRule("off", enabled=False, expiration_days=1),
            LifecycleRule("tagged", tags={"a": "b"}, expiration_days=2),
            LifecycleRule("small", size_less_than=10, expiration_days=3),
            LifecycleRule("uploads", prefix="u", abort_upload_days=2),
        )
    )
    assert choose_expiration(lifecycle, b"k", 10, {}, 0) == (10 * DAY_MS, "late")
    assert choose_expiration(lifecycle, b"k", 9, {}, 0) == (4 * DAY_MS, "small")
    assert choose_expiration(lifecycle, b"k", 10, {"a": "b", "c": ""}, 0) == (3 * DAY_MS, "tagged")
    assert choose_abortion(lifecycle, b"k", 0) is None
    assert choose_abortion(lifecycle, b"up", 0) == (3 * DAY_MS, "uploads")
    assert choose_expiration(Lifecycle(()), b"k", 0, {}, 0) is None


def test_aborts() -> None:
    """By prefix and age; never by a rule that is off."""
    asked = [
        LifecycleRule("1", prefix="a", abort_upload_days=2),
        LifecycleRule("2", enabled=False, abort_upload_days=1),
    ]
    uploads = [
        Upload(f"{object_key}-{age}", 1, object_key.encode(), "o", NOW_MS - age * DAY_MS, Attributes())
        for object_key in ("a1", "b1")
        for age in (0, 1, 2, 3)
    ]
    assert [upload.upload_id for upload in plan_aborts(asked, uploads, NOW_MS)] == ["a1-3"]
    assert [upload.upload_id for upload in plan_aborts(asked, uploads, NOW_MS, 40_000.0)] == ["a1-1", "a1-2", "a1-3"]


def entry(version_id: str, *, is_latest: bool, is_marker: bool = False) -> VersionEntry:
    """A line of a listing."""
    size = 0 if is_marker else 7
    return VersionEntry(b"k", version_id, is_latest, is_marker, size, "e", 1_999, "STANDARD", "o", "", "")


def test_targets_hold_for_what_was_planned() -> None:
    """Names that may mean something else later come with conditions."""
    as_planned = Conditions(if_match="e", size=7, last_modified_s=1)
    still_a_marker = Conditions(if_none_match="*", last_modified_s=1)
    plain = LifecycleRule("r", expiration_date_ms=0, noncurrent_days=1)
    for entries, expected in (
        ([entry("null", is_latest=True)], DeleteTarget(b"k", None, as_planned)),
        ([entry("v", is_latest=True)], DeleteTarget(b"k", None, as_planned)),
        ([entry("v", is_latest=True, is_marker=True)], DeleteTarget(b"k", "v")),
        ([entry("null", is_latest=True, is_marker=True)], DeleteTarget(b"k", "null", still_a_marker)),
    ):
        plan = plan_expiry([plain], entries, KeyState(), NOW_MS, is_last=True, tags={})
        assert [make_target(expiry) for expiry in plan.expiries] == [expected]
    older = KeyState(b"k", newer_ms=5)
    for entries, expected in (
        ([entry("null", is_latest=False)], DeleteTarget(b"k", "null", as_planned, True)),
        ([entry("null", is_latest=False, is_marker=True)], DeleteTarget(b"k", "null", still_a_marker, True)),
        ([entry("v", is_latest=False)], DeleteTarget(b"k", "v", noncurrent_only=True)),
    ):
        plan = plan_expiry([plain], entries, older, NOW_MS, is_last=True, tags={})
        assert [make_target(expiry) for expiry in plan.expiries] == [expected]


@given(st.lists(rules, max_size=3).map(tuple))
def test_the_setting_comes_back(asked: tuple[LifecycleRule, ...]) -> None:
    """As it was encoded; what is none of ours is refused."""
    assert read_lifecycle(encode_lifecycle(Lifecycle(asked))) == Lifecycle(asked)
    with pytest.raises(msgspec.MsgspecError):
        read_lifecycle(b'{"rules": [{"rule_id": "1", "surprise": 2}]}')
