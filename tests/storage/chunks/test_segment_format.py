"""Headers and slots as bytes: what they say, what they do not vouch for, and the vectors that keep them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.ids import ChunkId, make_blob_id
from storage.chunks.footer import Footer
from storage.chunks.layout import group_name
from storage.chunks.segment_format import (
    BLOCK_BYTES,
    BODIES_OFFSET,
    EMPTY_SLOT,
    HEADER_BYTES,
    IDENTITY_BYTES,
    RECORD_BYTES_MAX,
    SLOT_BYTES,
    SLOTS,
    TABLE_BYTES,
    VERIFIED_OFFSET,
    UnknownFormat,
    find_gaps,
    find_within,
    format_header,
    format_slot,
    format_verified,
    group_blob_id,
    padded,
    parse_header,
    parse_slot,
    parse_table,
    slot_number,
    slot_offset,
)

IDS = st.builds(
    lambda session, counter, index: ChunkId(make_blob_id(session, counter), index),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)
FOOTERS = st.builds(Footer, st.integers(1, RECORD_BYTES_MAX), st.binary(min_size=8, max_size=8), st.integers(0, 2**63))
OFFSETS = st.integers(BODIES_OFFSET // BLOCK_BYTES, 2**32 - 1).map(lambda block: block * BLOCK_BYTES)
TIMES_MS = st.integers(1, 2**63)
GROUP = "73657373696f6e310000000000002"


@given(of=IDS, offset=OFFSETS, footer=FOOTERS)
def test_a_slot_comes_back(of: ChunkId, offset: int, footer: Footer) -> None:
    """And was never verified."""
    raw = format_slot(of, offset, footer)
    slot = parse_slot(raw, of.blob_id)
    assert len(raw) == SLOT_BYTES
    assert slot is not None
    assert (slot.chunk_id, slot.offset, slot.footer, slot.verified_ms) == (of, offset, footer, 0)
    assert not slot.is_damaged
    assert slot.end == offset + padded(footer.length)


@given(of=IDS, offset=OFFSETS, footer=FOOTERS, verified_ms=TIMES_MS)
def test_a_verified_time_is_of_one_chunk(of: ChunkId, offset: int, footer: Footer, verified_ms: int) -> None:
    """It stays with the slot it was written to, and says nothing in another."""
    raw = bytearray(format_slot(of, offset, footer))
    slot = parse_slot(raw, of.blob_id)
    assert slot is not None
    raw[VERIFIED_OFFSET : VERIFIED_OFFSET + 12] = format_verified(slot.identity, verified_ms)
    verified = parse_slot(raw, of.blob_id)
    assert verified == slot._replace(verified_ms=verified_ms)
    later = bytearray(format_slot(of, offset, footer._replace(stored_ms=footer.stored_ms ^ 1)))
    later[VERIFIED_OFFSET:] = raw[VERIFIED_OFFSET:]
    other = parse_slot(later, of.blob_id)
    assert other is not None
    assert other.verified_ms == 0


@given(of=IDS, offset=OFFSETS, footer=FOOTERS, bit=st.integers(0, IDENTITY_BYTES * 8 - 1), verified_ms=TIMES_MS)
def test_any_changed_bit_is_damage(of: ChunkId, offset: int, footer: Footer, bit: int, verified_ms: int) -> None:
    """Of what stays the same for as long as the chunk is there; a damaged slot was never verified."""
    raw = bytearray(format_slot(of, offset, footer))
    raw[VERIFIED_OFFSET : VERIFIED_OFFSET + 12] = format_verified(bytes(raw[:IDENTITY_BYTES]), verified_ms)
    raw[bit // 8] ^= 1 << bit % 8
    slot = parse_slot(raw, of.blob_id)
    assert slot is not None
    assert slot.is_damaged
    assert slot.verified_ms == 0


@given(of=IDS, other=IDS, offset=OFFSETS, footer=FOOTERS)
def test_a_slot_binds_its_place(of: ChunkId, other: ChunkId, offset: int, footer: Footer) -> None:
    """In another place, or in a file of another name, it is damage."""
    slot = parse_slot(format_slot(of, offset, footer), other.blob_id)
    assert slot is not None
    assert slot.is_damaged == (of.blob_id != other.blob_id)


@given(of=IDS)
def test_a_chunk_has_one_slot(of: ChunkId) -> None:
    """Which its group and its number lead back from."""
    number = slot_number(of)
    assert 0 <= number < SLOTS
    assert group_blob_id(group_name(str(of)), number) == of.blob_id
    assert BLOCK_BYTES <= slot_offset(number) <= BODIES_OFFSET - SLOT_BYTES
    assert slot_offset(number) // 512 == (slot_offset(number) + SLOT_BYTES - 1) // 512, "within a sector"


@given(taken=st.dictionaries(st.integers(0, SLOTS - 1), FOOTERS, max_size=8), cut=st.integers(0, TABLE_BYTES))
def test_tables(taken: dict[int, Footer], cut: int) -> None:
    """What is free, or cut off, is not listed."""
    raw = bytearray(TABLE_BYTES)
    for number, footer in taken.items():
        of = ChunkId(group_blob_id(GROUP, number), 3)
        raw[number * SLOT_BYTES : (number + 1) * SLOT_BYTES] = format_slot(of, BODIES_OFFSET, footer)
    found = dict(parse_table(bytes(raw[:cut]), GROUP))
    assert list(found) == sorted(number for number in taken if (number + 1) * SLOT_BYTES <= cut)
    for number, slot in found.items():
        assert slot.chunk_id.blob_id == group_blob_id(GROUP, number)
        assert slot.footer == taken[number]


def test_a_free_slot_is_none() -> None:
    """Whatever time is left in it; so is one behind the end of the file."""
    assert parse_slot(EMPTY_SLOT, bytes(16)) is None
    assert parse_slot(bytes(IDENTITY_BYTES) + b"x" * (SLOT_BYTES - IDENTITY_BYTES), bytes(16)) is None
    assert parse_slot(b"", bytes(16)) is None
    assert parse_slot(b"x" * 63, bytes(16)) is None


@given(mark=st.integers(0, 2**64 - 1), bit=st.integers(0, 20 * 8 - 1))
def test_headers(mark: int, bit: int) -> None:
    """A damaged one, one of another group, and one that was never written vouch for nothing."""
    raw = bytearray(format_header(GROUP, mark))
    assert len(raw) == HEADER_BYTES
    assert parse_header(raw, GROUP) == mark
    assert parse_header(raw, GROUP[:-1] + "3") is None
    raw[bit // 8] ^= 1 << bit % 8
    assert parse_header(raw, GROUP) is None
    assert parse_header(bytes(HEADER_BYTES), GROUP) is None
    assert parse_header(b"", GROUP) is None


def test_a_later_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than taken for damage."""
    monkeypatch.setattr("storage.chunks.segment_format.FORMAT_VERSION", 2)
    raw = format_header(GROUP, 1)
    monkeypatch.undo()
    with pytest.raises(UnknownFormat):
        parse_header(raw, GROUP)


def test_vectors() -> None:
    """What is on disks stays readable."""
    of = ChunkId(bytes.fromhex("73657373696f6e310000000000002005"), 0x20001)
    slot = format_slot(of, BODIES_OFFSET, Footer(65_616, bytes(range(8)), 1_700_000_000_000))
    assert slot.hex() == "4642534c00020001000000410001005000010203040506070000018bcfe56800fd2d9c12" + "00" * 28
    assert format_verified(slot[:IDENTITY_BYTES], 1_700_000_000_001).hex() == "0000018bcfe56801e31086d1"
    assert format_header(GROUP, BODIES_OFFSET + 69_632).hex() == "464253470000000100000000000520009b0fb543" + "00" * 44
    assert BODIES_OFFSET == 266_240


@given(
    sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=6),
    tail=st.integers(0, 3),
    seed=st.randoms(use_true_random=False),
)
def test_gaps_are_what_is_between(sizes: list[tuple[int, int]], tail: int, seed: object) -> None:
    """Blocks that no body takes, each once."""
    extents, expected, position = [], [], BODIES_OFFSET
    for gap, length in sizes:
        if gap:
            expected.append((position, gap * BLOCK_BYTES))
        position += gap * BLOCK_BYTES
        extents.append((position, position + length * BLOCK_BYTES))
        position += length * BLOCK_BYTES
    if tail:
        expected.append((position, tail * BLOCK_BYTES))
    seed.shuffle(extents)  # type: ignore[attr-defined]
    merged: list[tuple[int, int]] = []
    for begin, length in expected:
        if merged and sum(merged[-1]) == begin:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((begin, length))
    assert list(find_gaps(extents, position + tail * BLOCK_BYTES)) == merged


@given(
    slots=st.dictionaries(st.integers(0, SLOTS - 1), st.tuples(st.integers(65, 200), FOOTERS), max_size=12),
    damaged=st.sets(st.integers(0, SLOTS - 1), max_size=3),
    begin=st.integers(60, 210),
    blocks=st.integers(0, 100),
    missing=st.integers(0, TABLE_BYTES),
)
def test_what_lies_within_a_range(
    slots: dict[int, tuple[int, Footer]], damaged: set[int], begin: int, blocks: int, missing: int
) -> None:
    """The same as looking at each slot of the table, or of what there is of it."""
    raw = bytearray(TABLE_BYTES)
    for number, (block, footer) in slots.items():
        of = ChunkId(group_blob_id(GROUP, number), 0)
        raw[number * SLOT_BYTES : (number + 1) * SLOT_BYTES] = format_slot(of, block * BLOCK_BYTES, footer)
    for number in damaged:
        raw[number * SLOT_BYTES + 20] ^= 1
    table = bytes(raw[: TABLE_BYTES - missing])
    first, last = begin * BLOCK_BYTES, (begin + blocks) * BLOCK_BYTES
    expected = [slot for _, slot in parse_table(table, GROUP) if first <= slot.offset < last and not slot.is_damaged]
    assert find_within(table, GROUP, first, last) == expected
