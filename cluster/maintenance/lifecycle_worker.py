"""Does what buckets' lifecycle settings say, page by page, in the process of the active master.

A bucket is walked when its setting is new, when a day has begun (all that falls due falls due at midnight UTC), and
again when the last walk ended something (a marker may stand alone now). Where a lifecycle day has another length, as in
tests, every round walks every bucket. A round looks at so many pages in all, buckets taking turns, and the next round
goes on where it stopped; a restart begins the walks anew, which costs time and nothing else.

Nothing is lost to a race: each delete holds only for the very version that was planned (lifecycle.make_target). Should
two masters ever walk at once, the second one finds nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from cluster.maintenance.lifecycle import (
    Ending,
    KeyState,
    VersionName,
    choose_prefixes,
    make_target,
    plan_aborts,
    plan_expiry,
)
from cluster.maintenance.lifecycle_rules import CALENDAR_DAY_S, LIFECYCLE_SETTING, LifecycleRule, read_lifecycle
from storage.base.clock import Clock
from storage.base.errors import NoSuchBucket, NoSuchKey, NoSuchUpload, NoSuchVersion, ObjectLocked
from storage.metadata.commands import AbortUpload, Deleted, DeleteVersions
from storage.metadata.interface import Metadata, VersionPage
from storage.model import Bucket

PAGE_ENTRIES = 1_000
PAGES_PER_ROUND = 2_000
TAG_READS_AT_ONCE = 16
BUCKETS_PER_READ = 10_000
PAUSE_S = 0.01
"""between pages, so that a walk never has the metadata to itself"""
ROUND_INTERVAL_S_MAX = 60.0
ROUNDS_PER_DAY = 10
"""where a day is short"""
ROUND_INTERVAL_S_MIN = 0.1

_log = logging.getLogger(__name__)


class LifecycleReport(NamedTuple):
    """What one round did."""

    pages: int = 0
    expired: int = 0
    """current versions that were deleted, or hidden by a marker"""
    noncurrent: int = 0
    """noncurrent versions that were removed"""
    marker: int = 0
    """markers that were removed as the last of their key"""
    aborted: int = 0
    locked: int = 0
    """versions that a retention or a legal hold keeps"""
    changed: int = 0
    """versions that were not what they had been when they were listed"""
    walks_finished: int = 0


class _Walk:
    """One way through a bucket."""

    __slots__ = ("after", "bucket", "ended", "period", "prefixes", "rules", "state", "stored", "upload_prefixes")

    def __init__(self, bucket: Bucket, stored: bytes, rules: Sequence[LifecycleRule], period: int) -> None:
        self.bucket = bucket
        self.stored = stored
        self.rules = rules
        self.period = period
        self.prefixes = deque(choose_prefixes(rules, of_uploads=False))
        self.upload_prefixes = deque(choose_prefixes(rules, of_uploads=True))
        self.after: VersionName = (b"", "")
        self.state = KeyState()
        self.ended = 0

    @property
    def is_over(self) -> bool:
        return not self.prefixes and not self.upload_prefixes


class LifecycleWorker:
    """One per cluster. `run_once` at any time; rounds never overlap."""

    def __init__(
        self,
        metadata: Metadata,
        clock: Clock,
        day_s: float = CALENDAR_DAY_S,
        *,
        page_entries: int = PAGE_ENTRIES,
        pages_per_round: int = PAGES_PER_ROUND,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.totals: Counter[str] = Counter()
        self._metadata = metadata
        self._clock = clock
        self._day_s = day_s
        self._page_entries = page_entries
        self._pages_per_round = pages_per_round
        self._pause_s = pause_s
        self._sequence = -1
        self._buckets: dict[int, Bucket] = {}
        self._walks: deque[_Walk] = deque()
        self._done: dict[int, tuple[bytes, int]] = {}
        """bucket id → the setting and the period that its last walk was for"""
        self._rounds = 0
        self._running = asyncio.Lock()

    @property
    def interval_s(self) -> float:
        """How often a round should run."""
        return max(ROUND_INTERVAL_S_MIN, min(ROUND_INTERVAL_S_MAX, self._day_s / ROUNDS_PER_DAY))

    async def run(self) -> None:
        """As a background loop calls it."""
        report = await self.run_once()
        if any(report._replace(pages=0, walks_finished=0)):
            _log.info(
                "lifecycle: %s", ", ".join(f"{name} {value}" for name, value in report._asdict().items() if value)
            )

    async def run_once(self) -> LifecycleReport:
        """One round. Unavailable without the metadata; what is not done then is done in the next round."""
        async with self._running:
            self._rounds += 1
            counts: Counter[str] = Counter()
            try:
                await self._refresh()
                self._begin_walks()
                while self._walks and counts["pages"] < self._pages_per_round:
                    if counts["pages"]:
                        await asyncio.sleep(self._pause_s)
                    await self._step(counts)
            finally:
                self.totals += counts
            return LifecycleReport(**counts)

    async def _refresh(self) -> None:
        """The buckets that have the setting, read again when the configuration has changed."""
        sequence = await self._metadata.configuration_sequence()
        if sequence == self._sequence:
            return
        found: dict[int, Bucket] = {}
        after = ""
        while True:
            page = await self._metadata.list_buckets(None, after, BUCKETS_PER_READ)
            found.update({bucket.bucket_id: bucket for bucket in page if LIFECYCLE_SETTING in bucket.settings})
            if len(page) < BUCKETS_PER_READ:
                break
            after = page[-1].name
        self._buckets, self._sequence = found, sequence
        self._done = {bucket_id: done for bucket_id, done in self._done.items() if bucket_id in found}

    def _begin_walks(self) -> None:
        """Drop the walks whose setting is another now, and begin those that are due."""
        self._walks = deque(walk for walk in self._walks if self._is_still_asked(walk))
        walked = {walk.bucket.bucket_id for walk in self._walks}
        period = self._period()
        for bucket_id, bucket in self._buckets.items():
            stored = bucket.settings[LIFECYCLE_SETTING]
            if bucket_id in walked or self._done.get(bucket_id) == (stored, period):
                continue
            try:
                rules = read_lifecycle(stored).rules
            except msgspec.MsgspecError as error:
                _log.error("the lifecycle setting of bucket %s cannot be read: %s", bucket.name, error)
                self._done[bucket_id] = (stored, period)
                continue
            self._walks.append(_Walk(bucket, stored, rules, period))

    def _is_still_asked(self, walk: _Walk) -> bool:
        bucket = self._buckets.get(walk.bucket.bucket_id)
        return bucket is not None and bucket.settings[LIFECYCLE_SETTING] == walk.stored

    def _period(self) -> int:
        """Changes whenever something may have fallen due."""
        if self._day_s != CALENDAR_DAY_S:
            return self._rounds
        return int(self._clock.now_ms() // (CALENDAR_DAY_S * 1000))

    async def _step(self, counts: Counter[str]) -> None:
        """One page of the walk whose turn it is."""
        walk = self._walks[0]
        try:
            if walk.prefixes:
                await self._walk_versions(walk, counts)
            elif walk.upload_prefixes:
                await self._walk_uploads(walk, counts)
        except NoSuchBucket:
            self._walks.popleft()
            return
        self._walks.popleft()
        counts["pages"] += 1
        if not walk.is_over:
            self._walks.append(walk)
            return
        counts["walks_finished"] += 1
        # A walk that ended something is followed by another one, which may find a marker standing alone.
        self._done[walk.bucket.bucket_id] = (walk.stored, -1 if walk.ended else walk.period)

    async def _walk_versions(self, walk: _Walk, counts: Counter[str]) -> None:
        page: VersionPage = await self._metadata.list_versions(
            walk.bucket.bucket_id, prefix=walk.prefixes[0], after=walk.after, limit=self._page_entries
        )
        is_last, now_ms = page.next_after is None, self._clock.now_ms()
        tags: dict[VersionName, dict[str, str]] = {}
        plan = plan_expiry(walk.rules, page.entries, walk.state, now_ms, is_last=is_last, tags=tags, day_s=self._day_s)
        if plan.wanting_tags:
            tags = await self._fetch_tags(walk.bucket, plan.wanting_tags)
            plan = plan_expiry(
                walk.rules, page.entries, walk.state, now_ms, is_last=is_last, tags=tags, day_s=self._day_s
            )
        if plan.expiries:
            targets = tuple(make_target(expiry) for expiry in plan.expiries)
            outcomes: list[Deleted] = await self._metadata.apply(DeleteVersions(walk.bucket.bucket_id, targets))
            for expiry, outcome in zip(plan.expiries, outcomes, strict=True):
                _count(counts, walk, expiry.ending, outcome)
        walk.state = plan.state
        if page.next_after is not None:
            walk.after = page.next_after
        else:
            walk.prefixes.popleft()
            walk.after = (b"", "")

    async def _fetch_tags(self, bucket: Bucket, names: Sequence[VersionName]) -> dict[VersionName, dict[str, str]]:
        """Of versions that are still there; none for the others, which no rule with tags ends."""
        found: dict[VersionName, dict[str, str]] = {}

        async def fetch(name: VersionName) -> None:
            try:
                reading = await self._metadata.read_version(bucket.bucket_id, *name, with_body=False)
            except (NoSuchKey, NoSuchVersion):
                found[name] = {}
            else:
                found[name] = reading.version.attributes.tags

        for start in range(0, len(names), TAG_READS_AT_ONCE):
            await asyncio.gather(*(fetch(name) for name in names[start : start + TAG_READS_AT_ONCE]))
        return found

    async def _walk_uploads(self, walk: _Walk, counts: Counter[str]) -> None:
        page = await self._metadata.list_uploads(
            walk.bucket.bucket_id, prefix=walk.upload_prefixes[0], after=walk.after, limit=self._page_entries
        )
        for upload in plan_aborts(walk.rules, page.uploads, self._clock.now_ms(), self._day_s):
            try:
                await self._metadata.apply(AbortUpload(walk.bucket.bucket_id, upload.object_key, upload.upload_id))
            except NoSuchUpload:
                continue  # completed or aborted since
            counts["aborted"] += 1
        if page.next_after is not None:
            walk.after = page.next_after
        else:
            walk.upload_prefixes.popleft()
            walk.after = (b"", "")


def _count(counts: Counter[str], walk: _Walk, ending: Ending, outcome: Deleted) -> None:
    if not outcome.refusal:
        counts[ending.value] += 1
        walk.ended += 1
    elif outcome.refusal == ObjectLocked.__name__:
        counts["locked"] += 1
    else:
        counts["changed"] += 1
