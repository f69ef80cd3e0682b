"""The lifecycle worker over real records of both engines: what is due ends, what is not stays, whatever races."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.maintenance.lifecycle_rules import Lifecycle, LifecycleRule, encode_lifecycle
from cluster.maintenance.lifecycle_worker import LifecycleReport, LifecycleWorker
from storage.base.errors import Unavailable
from storage.metadata.commands import (
    ChangeObject,
    Command,
    DeleteBucket,
    DeleteVersions,
    PutBucketSetting,
    SetVersioning,
)
from storage.metadata.interface import Metadata
from storage.model import Attributes, Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine, SqliteEngine
from tests.storage.metadata.postgresql.engine import PostgresEngine

DAY_S = 86_400
PAGE_ENTRIES = 3
"""few, so that every walk has many pages"""


class Scene:
    """A metadata store, a writer, and the lifecycle worker on the same clock."""

    def __init__(self, engine: Engine, metadata: Metadata, writer: Worker) -> None:
        self.clock = engine.clock
        self.metadata = metadata
        self.writer = writer
        self.lifecycle = self.new_worker()

    def new_worker(self, metadata: Metadata | None = None, **settings: Any) -> LifecycleWorker:
        """As after a restart."""
        return LifecycleWorker(metadata or self.metadata, self.clock, page_entries=PAGE_ENTRIES, pause_s=0, **settings)

    async def configure(self, *rules: LifecycleRule, writer: Worker | None = None) -> None:
        """Set the rules of a bucket; none takes the setting away."""
        document = encode_lifecycle(Lifecycle(rules)) if rules else None
        bucket = (writer or self.writer).bucket
        await self.metadata.apply(PutBucketSetting(bucket.bucket_id, "lifecycle", document))

    async def pass_days(self, days: float) -> LifecycleReport:
        """Time passes, and a round runs."""
        self.clock.advance(days * DAY_S)
        return await self.lifecycle.run_once()

    async def names(self, writer: Worker | None = None) -> list[bytes]:
        """The current versions of a bucket."""
        page = await self.metadata.list_heads((writer or self.writer).bucket.bucket_id)
        return [entry.object_key for entry in page.entries]

    async def history(self, writer: Worker) -> list[tuple[bytes, str, bool]]:
        """(key, version id, whether it is a marker) of every version."""
        page = await self.metadata.list_versions(writer.bucket.bucket_id)
        return [(entry.object_key, entry.version_id, entry.is_marker) for entry in page.entries]


@pytest.fixture(params=[SqliteEngine, PostgresEngine], ids=["sqlite", "postgresql"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    """A fresh store; what a test leaves behind must be whole."""
    engine: Engine = request.param(tmp_path)
    await engine.start()
    try:
        metadata = await engine.connect()
        yield Scene(engine, metadata, await Worker.start(metadata))
        assert await engine.check() == []
    finally:
        await engine.stop()


async def test_objects_expire_and_nothing_else_does(scene: Scene) -> None:
    """By prefix, age, size and tag; at the midnight after so many days and not before."""
    put = scene.writer.put
    for number in range(PAGE_ENTRIES * 2):
        await put(b"logs/%d" % number)
    await put(b"keep")
    await put(b"small", size=1)
    await put(b"tagged", attributes=Attributes(tags={"gone": "soon", "other": ""}))
    await put(b"untagged", attributes=Attributes(tags={"gone": "never"}))
    await scene.configure(
        LifecycleRule("logs", prefix="logs/", expiration_days=1),
        LifecycleRule("small", size_less_than=5, expiration_days=1),
        LifecycleRule("tags", tags={"gone": "soon"}, expiration_days=1),
        LifecycleRule("off", enabled=False, expiration_days=1),
    )
    assert (await scene.pass_days(0.9)).expired == 0
    assert len(await scene.names()) == PAGE_ENTRIES * 2 + 4
    assert (await scene.pass_days(1.1)).expired == PAGE_ENTRIES * 2 + 2
    assert await scene.names() == [b"keep", b"untagged"]


async def test_tags_of_now_count(scene: Scene) -> None:
    """Those that were changed since the object was put."""
    await scene.writer.put(b"k", attributes=Attributes(tags={"a": "1"}))
    await scene.writer.put(b"late")
    for object_key, tags in ((b"k", dict[str, str]()), (b"late", {"a": "1"})):
        await scene.metadata.apply(ChangeObject(scene.writer.bucket.bucket_id, object_key, tags=tags))
    await scene.configure(LifecycleRule("tags", tags={"a": "1"}, expiration_days=1))
    assert (await scene.pass_days(3)).expired == 1
    assert await scene.names() == [b"k"]


async def test_a_versioned_bucket_gets_markers(scene: Scene) -> None:
    """Expiry hides, noncurrent expiry removes, and a marker that stands alone goes last."""
    writer = await scene.writer.in_bucket("versioned", Versioning.ENABLED)
    for number in range(PAGE_ENTRIES + 2):
        await writer.put(b"k", f"e{number}")
    await scene.configure(LifecycleRule("all", expiration_days=1, noncurrent_days=2), writer=writer)
    hidden = await scene.pass_days(2)
    assert (hidden.expired, hidden.noncurrent) == (1, 0)
    history = await scene.history(writer)
    assert [is_marker for _, _, is_marker in history] == [True] + [False] * (PAGE_ENTRIES + 2)
    removed = await scene.pass_days(1)
    assert (removed.expired, removed.noncurrent, removed.marker) == (0, PAGE_ENTRIES + 1, 0)
    removed = await scene.pass_days(2)
    assert (removed.noncurrent, removed.marker) == (1, 0)
    # The same day: what was ended before lets the next round look again.
    assert (await scene.lifecycle.run_once()).marker == 1
    assert await scene.history(writer) == []
    assert (await scene.lifecycle.run_once()).pages == 1
    assert (await scene.lifecycle.run_once()).pages == 0


async def test_newer_noncurrent_versions_stay(scene: Scene) -> None:
    """So many as the rule says, over the edges of pages."""
    writer = await scene.writer.in_bucket("versioned", Versioning.ENABLED)
    for number in range(10):
        await writer.put(b"k", f"e{number}")
    rule = LifecycleRule("r", noncurrent_days=1, newer_noncurrent_versions=5)
    before = await scene.history(writer)
    await scene.configure(rule, writer=writer)
    assert (await scene.pass_days(3)).noncurrent == 4
    assert await scene.history(writer) == before[:6]


async def test_locked_versions_stay(scene: Scene) -> None:
    """A legal hold outlives the rule; nothing else of the page is kept by it."""
    writer = await scene.writer.in_bucket("versioned", Versioning.ENABLED)
    held = await writer.put(b"k", "e0")
    for number in range(3):
        await writer.put(b"k", f"f{number}")
    change = ChangeObject(writer.bucket.bucket_id, b"k", held.version_id, legal_hold=True)
    await scene.metadata.apply(change)
    await scene.configure(LifecycleRule("r", noncurrent_days=1), writer=writer)
    report = await scene.pass_days(3)
    assert (report.noncurrent, report.locked) == (2, 1)
    assert [version_id for _, version_id, _ in await scene.history(writer)][1:] == [held.version_id]


async def test_uploads_are_aborted(scene: Scene) -> None:
    """Those under the prefix, when they are old enough."""
    for number in range(PAGE_ENTRIES + 1):
        upload = await scene.writer.create_upload(b"up/%d" % number)
        await scene.writer.put_part(upload, 1)
    kept = await scene.writer.create_upload(b"other")
    await scene.configure(LifecycleRule("r", prefix="up/", abort_upload_days=2))
    assert (await scene.pass_days(1.9)).aborted == 0
    assert (await scene.pass_days(1.1)).aborted == PAGE_ENTRIES + 1
    page = await scene.metadata.list_uploads(scene.writer.bucket.bucket_id)
    assert [upload.upload_id for upload in page.uploads] == [kept.upload_id]


class Racing:
    """The metadata, with something that happens to the keys of each delete right before it."""

    def __init__(self, metadata: Metadata, happen: Callable[[bytes], Awaitable[object]]) -> None:
        self._metadata = metadata
        self._happen = happen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metadata, name)

    async def apply(self, command: Command) -> Any:
        if isinstance(command, DeleteVersions):
            for object_key in {target.object_key for target in command.targets}:
                await self._happen(object_key)
        return await self._metadata.apply(command)


@pytest.mark.parametrize("versioning", list(Versioning))
async def test_a_newer_object_is_never_lost(scene: Scene, versioning: Versioning) -> None:
    """It is put between the look and the delete."""
    writer = await scene.writer.in_bucket("raced", versioning)
    await writer.put(b"k", "old")
    await scene.configure(LifecycleRule("r", expiration_days=1, expired_marker=None), writer=writer)
    scene.clock.advance(3 * DAY_S)
    racing: Any = Racing(scene.metadata, lambda object_key: writer.put(object_key, "newer"))
    report = await scene.new_worker(racing).run_once()
    assert (report.expired, report.changed) == (0, 1)
    assert await writer.etag(b"k") == "newer"


async def test_a_marker_that_became_an_object_stays(scene: Scene) -> None:
    """A null marker is replaced by a null version: the id is the same, and still it is not deleted."""
    writer = await scene.writer.in_bucket("raced", Versioning.SUSPENDED)
    await writer.put(b"k", "old")
    await writer.delete(b"k")
    await scene.configure(LifecycleRule("r", expired_marker=True), writer=writer)
    racing: Any = Racing(scene.metadata, lambda object_key: writer.put(object_key, "newer"))
    assert (await scene.new_worker(racing).run_once()).changed == 1
    assert await writer.etag(b"k") == "newer"


@pytest.mark.parametrize("is_null", [False, True])
async def test_a_version_that_is_current_again_is_never_lost(scene: Scene, is_null: bool) -> None:
    """What was above it is deleted between the look and the delete; once it is noncurrent again, it goes."""
    writer = await scene.writer.in_bucket("raced", Versioning.ENABLED)
    bucket_id = writer.bucket.bucket_id
    await writer.put(b"k", "older")
    if is_null:
        await scene.metadata.apply(SetVersioning(bucket_id, Versioning.SUSPENDED))
    await writer.put(b"k", "old")
    await scene.metadata.apply(SetVersioning(bucket_id, Versioning.ENABLED))
    newer = await writer.put(b"k", "newer")
    await scene.configure(LifecycleRule("r", noncurrent_days=1), writer=writer)
    scene.clock.advance(3 * DAY_S)
    racing: Any = Racing(scene.metadata, lambda object_key: writer.delete(object_key, newer.version_id))
    report = await scene.new_worker(racing).run_once()
    assert (report.noncurrent, report.changed) == (1, 1)
    assert await writer.etag(b"k") == "old"
    assert len(await scene.history(writer)) == 1
    await writer.put(b"k", "newest")
    assert (await scene.pass_days(3)).noncurrent == 1
    assert await writer.etag(b"k") == "newest"
    assert len(await scene.history(writer)) == 1


async def test_rounds_are_bounded_and_go_on(scene: Scene) -> None:
    """Buckets take turns, and a round begins where the last one stopped."""
    other = await scene.writer.in_bucket("other")
    for writer in (scene.writer, other):
        for number in range(PAGE_ENTRIES * 3):
            await writer.put(b"%d" % number)
        await scene.configure(LifecycleRule("r", expiration_days=1), writer=writer)
    scene.clock.advance(3 * DAY_S)
    worker = scene.new_worker(pages_per_round=2)
    first = await worker.run_once()
    assert (first.pages, first.expired) == (2, PAGE_ENTRIES * 2)
    assert len(await scene.names()) == len(await scene.names(other)) == PAGE_ENTRIES * 2
    for _ in range(4):
        await worker.run_once()
    assert await scene.names() == await scene.names(other) == []
    assert worker.totals["expired"] == PAGE_ENTRIES * 6


async def test_a_walk_a_day(scene: Scene) -> None:
    """And one when the rules change; none for a bucket that has none any more, or is gone."""
    await scene.writer.put(b"k")
    assert (await scene.pass_days(1)).pages == 0
    await scene.configure(LifecycleRule("r", prefix="x", expiration_days=1))
    assert [(await scene.pass_days(days)).pages for days in (0, 0, 1, 0)] == [1, 0, 1, 0]
    await scene.configure(LifecycleRule("r", prefix="y", expiration_days=1))
    assert [(await scene.pass_days(days)).pages for days in (0, 0)] == [1, 0]
    await scene.configure()
    assert (await scene.pass_days(1)).pages == 0
    other = await scene.writer.in_bucket("other")
    await scene.configure(LifecycleRule("r", expiration_days=1), writer=other)
    await scene.metadata.apply(DeleteBucket(other.bucket.bucket_id))
    assert (await scene.pass_days(1)).pages == 0


async def test_short_days_are_walked_every_round(scene: Scene) -> None:
    """Without midnights; the interval follows the day."""
    worker = scene.new_worker(day_s=10.0)
    assert worker.interval_s == 1.0
    assert scene.new_worker().interval_s == 60.0
    await scene.writer.put(b"k")
    await scene.configure(LifecycleRule("r", expiration_days=2))
    for advance_s, expired in ((0, 0), (19, 0), (1, 1)):
        scene.clock.advance(advance_s)
        assert (await worker.run_once()).expired == expired


async def test_a_broken_setting_is_left_alone(scene: Scene) -> None:
    """And the other buckets are walked all the same."""
    await scene.metadata.apply(PutBucketSetting(scene.writer.bucket.bucket_id, "lifecycle", b"<xml/>"))
    other = await scene.writer.in_bucket("other")
    await other.put(b"k")
    await scene.configure(LifecycleRule("r", expiration_days=1), writer=other)
    assert (await scene.pass_days(3)).expired == 1


class Failing:
    """The metadata, which does not take deletes for a while."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata
        self.is_away = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metadata, name)

    async def apply(self, command: Command) -> Any:
        if self.is_away:
            raise Unavailable
        return await self._metadata.apply(command)


async def test_what_failed_is_done_in_the_next_round(scene: Scene) -> None:
    """The page is planned again."""
    await scene.writer.put(b"k")
    await scene.configure(LifecycleRule("r", expiration_days=1))
    scene.clock.advance(3 * DAY_S)
    failing: Any = Failing(scene.metadata)
    worker = scene.new_worker(failing)
    with pytest.raises(Unavailable):
        await worker.run_once()
    failing.is_away = False
    assert (await worker.run_once()).expired == 1
    assert await scene.names() == []
