"""Listings of versions: keys ascending, the newest first, the null version in its place, every page against a model."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.base.ids import format_version_id
from storage.metadata.interface import VersionPage
from storage.metadata.skipscan import common_prefix
from storage.model import Attributes, Checksum, ChecksumAlgorithm, Versioning
from tests.storage.metadata.builders import OWNER, Worker
from tests.storage.metadata.conftest import ENGINES
from tests.storage.metadata.engines import Engine

Item = tuple[bytes, str]
"""(key, version id), or (common prefix, ``)"""


def expected_items(stacks: dict[bytes, list[str]], prefix: bytes, delimiter: bytes, after: Item) -> Iterator[Item]:
    """All that may follow `after`, in order. stacks: the version ids of each key, the newest first."""
    given_prefixes = {common_prefix(after[0], prefix, delimiter)} if after[0].startswith(prefix) else set()
    for object_key in sorted(stacks):
        if not object_key.startswith(prefix) or object_key < after[0]:
            continue
        rolled_up = common_prefix(object_key, prefix, delimiter)
        if rolled_up is not None:
            if rolled_up not in given_prefixes and rolled_up > after[0]:
                yield rolled_up, ""
            given_prefixes.add(rolled_up)
            continue
        version_ids = stacks[object_key]
        if object_key == after[0]:
            is_there = bool(after[1]) and after[1] in version_ids
            version_ids = version_ids[version_ids.index(after[1]) + 1 :] if is_there else []
        for version_id in version_ids:
            yield object_key, version_id


def listed_items(page: VersionPage) -> list[Item]:
    """Entries and common prefixes of a page in their common order; entries keep the order that they came in."""
    entries = [(entry.object_key, entry.version_id) for entry in page.entries]
    prefixes = [(prefix, "") for prefix in page.common_prefixes]
    return sorted([*entries, *prefixes], key=lambda item: item[0])


async def all_items(worker: Worker, limit: int = 1000, **arguments: bytes) -> list[Item]:
    """Every page, in order."""
    found: list[Item] = []
    after: Item | None = (b"", "")
    while after is not None:
        page = await worker.metadata.list_versions(worker.bucket.bucket_id, after=after, limit=limit, **arguments)
        found += listed_items(page)
        after = page.next_after
    return found


async def test_an_empty_bucket_has_no_versions(worker: Worker) -> None:
    """And neither does a page of no length."""
    assert await worker.metadata.list_versions(worker.bucket.bucket_id) == VersionPage((), (), None)
    await worker.put(b"k")
    assert await worker.metadata.list_versions(worker.bucket.bucket_id, limit=0) == VersionPage((), (), None)


async def test_an_entry_says_what_its_version_is(versioned: Worker) -> None:
    """Noncurrent ones and markers too."""
    checksum = Checksum(ChecksumAlgorithm.SHA256, "x")
    put = await versioned.put(b"k", "one", 7, attributes=Attributes(storage_class="GLACIER", checksum=checksum))
    marker = await versioned.delete(b"k")
    newest, older = (await versioned.metadata.list_versions(versioned.bucket.bucket_id)).entries
    assert older[:7] == (b"k", put.version_id, False, False, 7, "one", put.last_modified_ms)
    assert older[7:] == ("GLACIER", OWNER, "SHA256", "FULL_OBJECT")
    assert newest[:6] == (b"k", marker.version_id, True, True, 0, "")
    assert newest[7:] == ("STANDARD", OWNER, "", "")


async def test_the_null_version_stands_in_its_sequence_place(worker: Worker) -> None:
    """Made before, between and after versions with ids."""
    await worker.put(b"unversioned")
    await worker.put(b"below")
    await worker.set_versioning(Versioning.ENABLED)
    above_null = await worker.put(b"below")
    beneath = await worker.put(b"between")
    await worker.put(b"on-top")
    stacked = await worker.put(b"on-top")
    await worker.set_versioning(Versioning.SUSPENDED)
    await worker.put(b"between")
    await worker.put(b"on-top")
    await worker.set_versioning(Versioning.ENABLED)
    between = await worker.put(b"between")
    page = await worker.metadata.list_versions(worker.bucket.bucket_id)
    by_key = {
        object_key: [entry.version_id for entry in entries]
        for object_key, entries in itertools.groupby(page.entries, lambda entry: entry.object_key)
    }
    assert by_key[b"unversioned"] == ["null"]
    assert by_key[b"below"] == [above_null.version_id, "null"]
    assert by_key[b"between"] == [between.version_id, "null", beneath.version_id]
    assert by_key[b"on-top"][:2] == ["null", stacked.version_id]
    latest = {entry.object_key: entry.version_id for entry in page.entries if entry.is_latest}
    assert latest == {object_key: version_ids[0] for object_key, version_ids in by_key.items()}
    assert await all_items(worker, limit=1) == [(entry.object_key, entry.version_id) for entry in page.entries]


async def test_a_page_may_begin_behind_a_version_that_is_gone(versioned: Worker) -> None:
    """An id places itself; so do ids that never were, and what is no id leads to the next key."""
    ids = [(await versioned.put(b"k")).version_id or "" for _ in range(3)]
    other = await versioned.put(b"l")
    await versioned.delete(b"k", ids[1])
    rest = [(b"k", ids[0]), (b"l", other.version_id)]

    async def after(version_id: str) -> list[Item]:
        page = await versioned.metadata.list_versions(versioned.bucket.bucket_id, after=(b"k", version_id))
        return listed_items(page)

    assert await after(ids[1]) == rest
    assert await after(ids[0]) == rest[1:]
    assert await after(format_version_id(2**64 - 1, b"\xff" * 8)) == [(b"k", ids[2]), *rest]
    assert await after(format_version_id(0, bytes(8))) == rest[1:]
    for unknown in ("null", "nonsense", "\x00", ""):
        assert await after(unknown) == rest[1:]


async def test_is_latest_holds_on_a_page_that_begins_in_the_middle_of_a_key(versioned: Worker) -> None:
    """What is first on a page is not the newest for that."""
    ids = [(await versioned.put(b"k")).version_id or "" for _ in range(3)]
    page = await versioned.metadata.list_versions(versioned.bucket.bucket_id, after=(b"k", ids[2]))
    assert [(entry.version_id, entry.is_latest) for entry in page.entries] == [(ids[1], False), (ids[0], False)]


async def test_a_key_of_many_versions_is_paged_through(versioned: Worker) -> None:
    """A page holds a piece of one key."""
    ids = [(await versioned.put(b"k", size=0)).version_id or "" for _ in range(25)]
    await versioned.put(b"j", size=0)
    items = await all_items(versioned, limit=4)
    assert items[1:] == [(b"k", version_id) for version_id in reversed(ids)]


async def test_common_prefixes_count_and_roll_markers_up(versioned: Worker) -> None:
    """A prefix that holds nothing but markers is a prefix of versions all the same."""
    await versioned.delete(b"a/gone")
    await versioned.put(b"a/there")
    plain = await versioned.put(b"b")
    await versioned.put(b"c/x")
    page = await versioned.metadata.list_versions(versioned.bucket.bucket_id, delimiter=b"/", limit=2)
    assert listed_items(page) == [(b"a/", ""), (b"b", plain.version_id)]
    assert page.next_after == (b"b", plain.version_id)
    assert await all_items(versioned, limit=1, delimiter=b"/") == [(b"a/", ""), (b"b", plain.version_id), (b"c/", "")]


KEYS = [b"a", b"a/", b"a/1", b"a/2/3", b"a0", b"b/x", b"b/x/y", b"c", b"\xff", b"\xff\xff/z"]
WRITES = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["put", "delete", "remove", "enable", "suspend"])),
    min_size=1,
    max_size=30,
)


async def _check_paging(engine: Engine, writes: list[tuple[bytes, str]], data: st.DataObject) -> None:
    """The writes on the engine and on a model, then pages of both."""
    await engine.start()
    try:
        worker = await Worker.start(await engine.connect())
        stacks: dict[bytes, list[str]] = {}
        versioning = Versioning.UNVERSIONED
        for object_key, write in writes:
            stack = stacks.setdefault(object_key, [])
            if write in ("enable", "suspend"):
                versioning = Versioning.ENABLED if write == "enable" else Versioning.SUSPENDED
                await worker.set_versioning(versioning)
            elif write == "remove" and stack:
                await worker.delete(object_key, stack.pop(len(stack) // 2))
            elif write == "put" or (write == "delete" and versioning):
                made: str | None
                if write == "put":
                    made = (await worker.put(object_key, size=0)).version_id or "null"
                else:
                    made = (await worker.delete(object_key)).version_id or ""
                stack[:] = [made, *(other for other in stack if other != made)]
            elif write == "delete":
                await worker.delete(object_key)
                stack.clear()
        stacks = {object_key: stack for object_key, stack in stacks.items() if stack}
        everything = [(object_key, version_id) for object_key in sorted(stacks) for version_id in stacks[object_key]]
        starts = [(b"", ""), *((object_key, "") for object_key in KEYS), *everything]
        for _ in range(8):
            prefix = data.draw(st.sampled_from([b"", b"a", b"a/", b"b/x", b"\xff"]))
            delimiter = data.draw(st.sampled_from([b"", b"/", b"/x"]))
            after = data.draw(st.sampled_from(starts))
            limit = data.draw(st.integers(1, 6))
            page = await worker.metadata.list_versions(
                worker.bucket.bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
            )
            expected = list(expected_items(stacks, prefix, delimiter, after))
            assert listed_items(page) == expected[:limit]
            assert page.next_after == (expected[limit - 1] if len(expected) > limit else None)
            assert all(entry.is_latest == (stacks[entry.object_key][0] == entry.version_id) for entry in page.entries)
    finally:
        await engine.stop()


@pytest.mark.parametrize("name", list(ENGINES))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(writes=WRITES, data=st.data())
def test_every_page_is_that_of_the_model(name: str, writes: list[tuple[bytes, str]], data: st.DataObject) -> None:
    """Any writes in any state of versioning, then any page."""
    directory = Path(tempfile.mkdtemp())
    try:
        asyncio.run(_check_paging(ENGINES[name](directory), writes, data))
    finally:
        shutil.rmtree(directory)
