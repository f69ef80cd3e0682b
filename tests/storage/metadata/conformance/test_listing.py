"""Listings of heads, against a plain computation over the same keys."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.metadata.interface import HeadPage
from storage.model import Attributes, Checksum, ChecksumAlgorithm, Versioning
from tests.storage.metadata.builders import OWNER, Worker

HOSTILE_KEYS = [
    b"a",
    b"a/",
    b"a//b",
    b"a/b",
    b"a/b/c",
    b"a+b",
    b"a b",
    b"/",
    b"/a",
    b"//",
    b"dir/",
    b"dir/x",
    b"\x00",
    b"\x00\x00",
    b"\x01\x7f",
    "ü/ä".encode(),
    "\U0001f980".encode(),
    b"\xff",
    b"\xff\xff/x",
    b"z" * 1024,
]
"""row 9 of what clients rely on, and bytes that no client can send but a store must order"""


def expected_page(keys: list[bytes], prefix: bytes, after: bytes, delimiter: bytes, limit: int) -> list[bytes]:
    """Everything that the rest of a listing gives, as one list of keys and common prefixes in order."""
    found: list[bytes] = []
    for object_key in sorted(keys):
        if not object_key.startswith(prefix):
            continue
        at = object_key.find(delimiter, len(prefix)) if delimiter else -1
        item = object_key if at < 0 else object_key[: at + len(delimiter)]
        if item > after and (not found or found[-1] != item):
            found.append(item)
    return found[:limit] if limit else []


def items(page: HeadPage) -> list[bytes]:
    """Keys and prefixes of a page in one order."""
    return sorted([*(entry.object_key for entry in page.entries), *page.common_prefixes])


async def walk(worker: Worker, prefix: bytes, delimiter: bytes, limit: int) -> list[bytes]:
    """All pages, following next_after."""
    found: list[bytes] = []
    after = b""
    while True:
        page = await worker.metadata.list_heads(
            worker.bucket.bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=limit
        )
        page_items = items(page)
        assert len(page_items) <= limit
        found += page_items
        if page.next_after is None:
            return found
        assert page.next_after == page_items[-1] > after
        after = page.next_after


async def test_an_entry_has_what_a_listing_shows(worker: Worker) -> None:
    """Owner, storage class and checksum come from the head row."""
    checksum = Checksum(ChecksumAlgorithm.SHA1, "x")
    committed = await worker.put(b"k", "etag", 12, attributes=Attributes(storage_class="GLACIER", checksum=checksum))
    (entry,) = (await worker.metadata.list_heads(worker.bucket.bucket_id)).entries
    assert entry == (b"k", 12, "etag", committed.last_modified_ms, "GLACIER", OWNER, "SHA1", "FULL_OBJECT")


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("delimiter", [b"", b"/", b"//", b"a"])
async def test_hostile_keys_are_all_distinct_and_listed_in_byte_order(
    worker: Worker, delimiter: bytes, limit: int
) -> None:
    """Pages of any size add up to the whole, without anything twice."""
    await asyncio.gather(*[worker.put(object_key) for object_key in HOSTILE_KEYS])
    for prefix in (b"", b"a", b"a/", b"/", b"dir/", b"\xff", b"\xff\xff", b"nothing"):
        everything = expected_page(HOSTILE_KEYS, prefix, b"", delimiter, len(HOSTILE_KEYS))
        assert await walk(worker, prefix, delimiter, limit) == everything


async def test_a_listing_may_start_after_any_name(worker: Worker) -> None:
    """Inside a common prefix, before the prefix, behind it, at a key itself."""
    await asyncio.gather(*[worker.put(object_key) for object_key in HOSTILE_KEYS])
    for after in (*HOSTILE_KEYS, b"a/a", b"a/zzz", b"dir", b"dir0", b"A", b"\xff\xff\xff"):
        for prefix in (b"", b"a/", b"dir/"):
            for delimiter in (b"", b"/"):
                page = await worker.metadata.list_heads(
                    worker.bucket.bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=4
                )
                assert items(page) == expected_page(HOSTILE_KEYS, prefix, after, delimiter, 4)


async def test_markers_are_not_listed_and_do_not_make_prefixes(worker: Worker) -> None:
    """A directory of deleted keys is no directory."""
    versioned = await worker.in_bucket("v", Versioning.ENABLED)
    for object_key in (b"gone/1", b"gone/2", b"here/1", b"here/2", b"x"):
        await versioned.put(object_key)
    for object_key in (b"gone/1", b"gone/2", b"here/1", b"never"):
        await versioned.delete(object_key)
    assert await walk(versioned, b"", b"/", 1) == [b"here/", b"x"]
    assert await walk(versioned, b"", b"", 1) == [b"here/2", b"x"]


async def test_a_limit_of_zero_is_an_empty_page(worker: Worker) -> None:
    """Without a continuation, as AWS answers max-keys=0."""
    await worker.put(b"k")
    assert await worker.metadata.list_heads(worker.bucket.bucket_id, limit=0) == ((), (), None)


async def test_listings_stay_in_their_bucket(worker: Worker) -> None:
    """The neighbours' keys are not seen, at either end."""
    others = [await worker.in_bucket(f"b{number}") for number in range(2)]
    for other in (others[0], worker, others[1]):
        await other.put(b"k%d" % other.bucket.bucket_id)
    assert await walk(others[0], b"", b"", 10) == [b"k%d" % others[0].bucket.bucket_id]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    prefix=st.sampled_from([b"", b"a", b"a/", b"b", b"a/a"]),
    after=st.text("ab/\xff", max_size=4),
    delimiter=st.sampled_from([b"", b"/", b"a", b"b/"]),
    limit=st.integers(1, 9),
)
async def test_any_page_is_what_a_plain_computation_says(
    worker: Worker, prefix: bytes, after: str, delimiter: bytes, limit: int
) -> None:
    """Every key of up to three characters over a small alphabet is there."""
    alphabet = [b"a", b"b", b"/"]
    keys = [x + y + z for x in alphabet for y in [b"", *alphabet] for z in [b"", *alphabet]]
    if (await worker.metadata.list_heads(worker.bucket.bucket_id)).entries == ():
        await asyncio.gather(*[worker.put(object_key) for object_key in sorted(set(keys))])
    start = after.encode("latin-1")
    page = await worker.metadata.list_heads(
        worker.bucket.bucket_id, prefix=prefix, after=start, delimiter=delimiter, limit=limit
    )
    everything = expected_page(sorted(set(keys)), prefix, start, delimiter, 1000)
    assert items(page) == everything[:limit]
    assert (page.next_after is None) == (len(everything) <= limit)
