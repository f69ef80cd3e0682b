"""The protocol's shapes: both ways, bounded, and nothing but ValueError for any bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import (
    ChunkConflict,
    ChunkError,
    ChunkNotFound,
    Corrupt,
    FrostbyteError,
    NodeFull,
    NoSuchKey,
)
from storage.base.ids import BLOB_ID_BYTES, CHUNK_INDEX_MAX, ChunkId
from storage.chunks.store import DIGEST_BYTES, ChunkReceipt, ChunkState, InventoryEntry, Space
from storage.datanode import judged_wire, wire

CHUNK_IDS = st.builds(
    ChunkId, st.binary(min_size=BLOB_ID_BYTES, max_size=BLOB_ID_BYTES), st.integers(0, CHUNK_INDEX_MAX)
)
DIGESTS = st.binary(min_size=DIGEST_BYTES, max_size=DIGEST_BYTES)
RECEIPTS = st.builds(ChunkReceipt, st.integers(1, wire.CHUNK_BYTES_MAX), DIGESTS)
MOMENTS = st.integers(0, 2**53)
ERRORS = st.builds(
    lambda kind, text: kind(text),
    st.sampled_from([ChunkNotFound, ChunkConflict, NodeFull, Corrupt, ChunkError]),
    st.text(min_size=1, max_size=50),
)
PARSERS: list[Callable[[bytes], Any]] = [
    wire.parse_receipt,
    wire.parse_pull_request,
    wire.parse_rebuild_request,
    wire.parse_scrub_order,
    wire.parse_scrub_status,
    wire.parse_damaged,
    wire.parse_heartbeat_answer,
    wire.parse_moment,
    wire.parse_inventory,
    wire.parse_space,
    wire.parse_put_items,
    wire.parse_pulls,
    wire.parse_spans,
    wire.parse_chunk_ids,
    judged_wire.parse_judged,
    lambda body: wire.parse_flags(body, 1),
    lambda body: wire.parse_states(body, 1),
    lambda body: wire.parse_put_outcomes(body, 1),
    lambda body: wire.parse_get_outcomes(body, 1),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.binary(max_size=300) | VALUES.map(wire.encode))
def test_any_bytes_are_parsed_or_refused(parse: Callable[[bytes], Any], body: bytes) -> None:
    """Random bytes and random msgpack of the wrong shape."""
    with contextlib.suppress(ValueError):
        parse(body)


@pytest.mark.parametrize("parse", PARSERS)
def test_depth_is_refused(parse: Callable[[bytes], Any]) -> None:
    """A hundred thousand nested arrays do not reach the end of the stack."""
    with pytest.raises(ValueError, match="not a body"):
        parse(b"\x91" * 100_000)


@given(RECEIPTS)
def test_receipts_go_both_ways(receipt: ChunkReceipt) -> None:
    """As the body of an answer."""
    assert wire.parse_receipt(wire.encode(receipt)) == receipt


@given(st.lists(st.none() | st.builds(ChunkState, st.integers(1, 2**40), DIGESTS, MOMENTS, MOMENTS), max_size=20))
def test_states_go_both_ways(states: list[ChunkState | None]) -> None:
    """One for each chunk asked about, none for what is not there."""
    assert wire.parse_states(wire.encode(states), len(states)) == states
    with pytest.raises(ValueError, match="outcomes"):
        wire.parse_states(wire.encode(states), len(states) + 1)


@given(st.lists(st.builds(wire.DamagedChunk, CHUNK_IDS.map(ChunkId.to_bytes), MOMENTS), max_size=20))
def test_damaged_lists_go_both_ways(damaged: list[wire.DamagedChunk]) -> None:
    """A page of them."""
    assert wire.parse_damaged(wire.encode(damaged)) == damaged


def test_scrub_orders_and_statuses_go_both_ways() -> None:
    """As maps, so that fields may come."""
    order = wire.ScrubOrder(5, begin=True)
    assert wire.parse_scrub_order(wire.encode(order)) == order
    status = wire.ScrubStatus(1, 2, True, 3, 4, 5, 6, 7, 8)
    assert wire.parse_scrub_status(wire.encode(status)) == status
    later = {"begin": True, "what comes later": 1}
    assert wire.parse_scrub_order(wire.encode(later)) == wire.ScrubOrder(0, begin=True)
    with pytest.raises(ValueError, match="not a body"):
        wire.parse_scrub_order(wire.encode({"pace_bytes_per_s": -1}))


@given(st.none() | CHUNK_IDS, st.integers(1, 999_999))
def test_pages_go_both_ways(after: ChunkId | None, limit: int) -> None:
    """The limit is cut to what one page gives."""
    path, _, query = wire.page_target(wire.DAMAGED, after, limit).partition("?")
    assert path == wire.DAMAGED
    assert wire.parse_page(query.encode()) == (after, min(limit, wire.INVENTORY_ENTRIES_MAX))


@given(st.binary(max_size=60))
def test_any_query_is_a_page_or_refused(query: bytes) -> None:
    """Never another error."""
    with contextlib.suppress(ValueError):
        wire.parse_page(query)


@pytest.mark.parametrize("receipt", [ChunkReceipt(0, bytes(8)), ChunkReceipt(1, bytes(7)), ChunkReceipt(-1, bytes(8))])
def test_impossible_receipts_are_refused(receipt: ChunkReceipt) -> None:
    """A chunk is never empty, a digest has 8 bytes."""
    with pytest.raises(ValueError, match="receipt"):
        wire.parse_receipt(wire.encode(receipt))


@given(st.lists(st.tuples(CHUNK_IDS, st.binary(min_size=1, max_size=100)), max_size=20))
def test_put_batches_go_both_ways(items: list[tuple[ChunkId, bytes]]) -> None:
    """And the chunks are views into the body, not copies."""
    body = wire.encode_put_items(items)
    parsed = wire.parse_put_items(body)
    assert [(chunk_id, bytes(data)) for chunk_id, data in parsed] == items
    assert all(data.obj is body for _, data in parsed)


def test_put_batches_take_any_buffer() -> None:
    """Frames come as views of larger buffers."""
    chunk_id = ChunkId(bytes(16), 0)
    for data in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        assert bytes(wire.parse_put_items(wire.encode_put_items([(chunk_id, data)]))[0][1]) == b"abc"


@given(st.lists(st.tuples(CHUNK_IDS, st.integers(0, 5000), st.integers(0, 5000)), max_size=20))
def test_spans_go_both_ways(spans: list[tuple[ChunkId, int, int]]) -> None:
    """The body of a batch of reads."""
    assert wire.parse_spans(wire.encode_spans(spans)) == spans


def test_spans_are_bounded_together() -> None:
    """What a batch of reads may put into memory is known before it is read."""
    chunk_id = ChunkId(bytes(16), 0)
    half = wire.BATCH_BYTES_MAX // 2
    assert len(wire.parse_spans(wire.encode_spans([(chunk_id, 0, half)] * 2))) == 2
    with pytest.raises(ValueError, match="at most"):
        wire.parse_spans(wire.encode_spans([(chunk_id, 0, half), (chunk_id, 0, half + 1)]))
    with pytest.raises(ValueError, match="not a body"):
        wire.parse_spans(wire.encode_spans([(chunk_id, -1, 1)]))


def test_pulls_go_both_ways_and_are_bounded_together() -> None:
    """As what a batch of reads puts into memory."""
    half = wire.BATCH_BYTES_MAX // 2
    requests = [wire.PullRequest("unix:/a", "1.ab", length, bytes(8)) for length in (half, half, 1)]
    pulls = [(ChunkId(bytes(16), index), request) for index, request in enumerate(requests)]
    assert wire.parse_pulls(wire.encode_pulls(pulls[:2])) == pulls[:2]
    with pytest.raises(ValueError, match="at most"):
        wire.parse_pulls(wire.encode_pulls(pulls))


@given(st.lists(CHUNK_IDS, max_size=20))
def test_id_lists_go_both_ways(chunk_ids: list[ChunkId]) -> None:
    """Of deletes and quarantines."""
    assert wire.parse_chunk_ids(wire.encode_chunk_ids(chunk_ids)) == chunk_ids


def test_batches_have_a_bound_of_items() -> None:
    """One more is refused by each of the parsers."""
    chunk_ids = [ChunkId(bytes(16), 0)] * (wire.BATCH_ITEMS_MAX + 1)
    for body, parse in (
        (wire.encode_chunk_ids(chunk_ids), wire.parse_chunk_ids),
        (wire.encode_put_items([(chunk_id, b"x") for chunk_id in chunk_ids]), wire.parse_put_items),
        (wire.encode_spans([(chunk_id, 0, 1) for chunk_id in chunk_ids]), wire.parse_spans),
        (wire.encode_pulls([(it, wire.PullRequest("unix:/a", "", 1, bytes(8))) for it in chunk_ids]), wire.parse_pulls),
    ):
        with pytest.raises(ValueError, match="not a body"):
            parse(body)


@given(st.lists(RECEIPTS | ERRORS, max_size=20))
def test_put_outcomes_go_both_ways(outcomes: list[ChunkReceipt | FrostbyteError]) -> None:
    """Receipts as they are, errors by class and text."""
    parsed = wire.parse_put_outcomes(wire.encode_outcomes(outcomes), len(outcomes))
    assert [_comparable(outcome) for outcome in parsed] == [_comparable(outcome) for outcome in outcomes]


@given(st.lists(st.binary(max_size=100) | ERRORS, max_size=20))
def test_get_outcomes_go_both_ways(outcomes: list[bytes | FrostbyteError]) -> None:
    """Bytes as they are, the empty ones too."""
    parsed = wire.parse_get_outcomes(wire.encode_outcomes(outcomes), len(outcomes))
    assert [_comparable(outcome) for outcome in parsed] == [_comparable(outcome) for outcome in outcomes]


def test_an_answer_of_another_count_is_refused() -> None:
    """An outcome must not be taken for another item's."""
    with pytest.raises(ValueError, match="2 outcomes for 3"):
        wire.parse_get_outcomes(wire.encode_outcomes([b"a", b"b"]), 3)
    with pytest.raises(ValueError, match="1 outcomes for 0"):
        wire.parse_flags(wire.encode([True]), 0)


def test_an_unknown_error_is_still_an_error() -> None:
    """Of a newer datanode, or one that never should have crossed."""
    parsed = wire.parse_get_outcomes(msgspec.msgpack.encode([(None, "NewTrouble", "it broke")]), 1)
    assert _comparable(parsed[0]) == (ChunkError, "NewTrouble: it broke")
    parsed = wire.parse_get_outcomes(wire.encode_outcomes([NoSuchKey("odd")]), 1)
    assert _comparable(parsed[0]) == (ChunkError, "odd")


@given(ERRORS)
def test_failures_go_both_ways(error: FrostbyteError) -> None:
    """Name in the header, text in the body."""
    name = type(error).__name__
    found = wire.parse_failure(name, wire.encode_failure(name, str(error)))
    assert _comparable(found) == _comparable(error)


def test_a_failure_needs_no_body_and_no_known_name() -> None:
    """HEAD has no body; an unknown name is for the caller to judge."""
    assert isinstance(wire.parse_failure("NodeFull", b""), NodeFull)
    assert wire.parse_failure("NoSuchKey", b"") is None
    assert wire.parse_failure("", b"\xff") is None
    assert len(str(wire.parse_failure("NodeFull", wire.encode_failure("NodeFull", "x" * 9999)))) == 500


@given(st.integers(0, 10**14), st.none() | st.integers(1, wire.CHUNK_BYTES_MAX))
def test_ranges_go_both_ways(offset: int, length: int | None) -> None:
    """[offset, offset+length) and back."""
    assert wire.parse_range(wire.format_range(offset, length)) == (offset, length)


@pytest.mark.parametrize(
    "header",
    ["", "bytes=", "bytes=-5", "bytes=5-4", "bytes=0-1,3-4", "bytes=a-b", "bytes=0-1 ", "bytes=1-\n", "items=0-1"],
)
def test_other_ranges_are_refused(header: str) -> None:
    """This protocol uses two forms only."""
    with pytest.raises(ValueError, match="range"):
        wire.parse_range(header)


@pytest.mark.parametrize("header", ["", "0", "-1", "+1", "1.0", "٣", str(wire.CHUNK_BYTES_MAX + 1), "9" * 40])
def test_impossible_lengths_are_refused(header: str) -> None:
    """Of a chunk."""
    with pytest.raises(ValueError, match=r"."):
        wire.parse_content_length(header)
    assert wire.parse_content_length(str(wire.CHUNK_BYTES_MAX)) == wire.CHUNK_BYTES_MAX


@given(st.lists(st.integers(0, wire.BATCH_BYTES_MAX + 1000) | st.integers(0, 100), max_size=60))
def test_batches_cover_all_items_and_fit(sizes: list[int]) -> None:
    """In order, without a gap, each within the bounds unless one item is too large by itself."""
    runs = list(wire.plan_batches(sizes))
    assert [index for run in runs for index in range(run.start, run.stop)] == list(range(len(sizes)))
    for run in runs:
        assert run.stop - run.start == 1 or sum(sizes[run]) <= wire.BATCH_BYTES_MAX


def test_batches_are_cut_at_the_bound_of_items() -> None:
    """However small the items are."""
    runs = list(wire.plan_batches([1] * (2 * wire.BATCH_ITEMS_MAX + 1)))
    assert [run.stop - run.start for run in runs] == [wire.BATCH_ITEMS_MAX, wire.BATCH_ITEMS_MAX, 1]
    assert list(wire.plan_batches([])) == []


def test_small_bodies_go_both_ways() -> None:
    """Space, inventory, moments, pulls, flags."""
    assert wire.parse_space(wire.encode(Space(3, 2, 1))) == Space(3, 2, 1)
    entries = [InventoryEntry(bytes(20), 5, 6)]
    assert wire.parse_inventory(wire.encode(entries)) == entries
    assert wire.parse_moment(wire.encode(5)) == 5
    assert wire.parse_flags(wire.encode([True, False]), 2) == [True, False]
    request = wire.PullRequest("unix:/a", "1.ab", 3, bytes(8))
    assert wire.parse_pull_request(wire.encode(request)) == request


def test_a_heartbeat_answer_may_grow() -> None:
    """A newer master says more; an older datanode takes what it knows."""
    body = wire.encode({"epoch": 3, "heartbeat_interval_s": 1.5, "added_later": [1]})
    assert wire.parse_heartbeat_answer(body) == wire.HeartbeatAnswer(3, 1.5)
    for broken in ({"epoch": -1, "heartbeat_interval_s": 1.0}, {"epoch": 1, "heartbeat_interval_s": 0.0}, {"epoch": 1}):
        with pytest.raises(ValueError, match="not a body"):
            wire.parse_heartbeat_answer(wire.encode(broken))


def test_a_chunk_target_is_its_hex_id() -> None:
    """With the action behind it."""
    chunk_id = ChunkId(b"\xff" * 16, 1)
    assert wire.chunk_target(chunk_id, wire.PULL) == "/v1/chunks/" + "ff" * 16 + "00000001/pull"
    assert wire.page_target(wire.INVENTORY, None, 5) == "/v1/inventory?after=&limit=5"
    assert wire.page_target(wire.DAMAGED, chunk_id, 5).endswith(f"after={chunk_id}&limit=5")


def _comparable(outcome: Any) -> Any:
    return (type(outcome), str(outcome)) if isinstance(outcome, Exception) else outcome
