"""Segments by known answers, and by damage: what is read is a prefix of what was written, never anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import Corrupt, SealBroken
from storage.journal.record import (
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    RECORD_OVERHEAD_BYTES,
    Record,
    SegmentHeader,
    SegmentSeal,
    make_segment_id,
    parse_header,
    read_records,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "journal-1.json").read_text())
SYSTEM_KEY = bytes(range(96, 128))
CLUSTER_ID = b"\xc1" * 16
PAYLOADS = st.lists(st.binary(max_size=60), max_size=6)


def header(first_sequence: int = 7, incarnation: int = 3) -> SegmentHeader:
    return SegmentHeader(CLUSTER_ID, make_segment_id(incarnation, b"randomly"), 99, first_sequence, 1_000, 3, 1, 2)


def write_segment(seal: SegmentSeal, payloads: list[bytes]) -> tuple[bytes, list[int]]:
    """→ the file, and where each record ends."""
    data, ends = seal.seal_header(), []
    for sequence, payload in enumerate(payloads, seal.header.first_sequence):
        data += seal.seal_record(Record(sequence, payload))
        ends.append(len(data))
    return data, ends


def numbered(payloads: list[bytes], first: int = 7) -> list[Record]:
    return [Record(sequence, payload) for sequence, payload in enumerate(payloads, first)]


def test_known_answers() -> None:
    """Computed by tests/vectors/compute.py from bare primitives."""
    data = bytes.fromhex(VECTORS["segment"])
    found = parse_header(data)
    names = ("history", "first_sequence", "opened_ms", "schema_version", "key_version", "copies")
    assert found == (
        bytes.fromhex(VECTORS["cluster_id"]),
        bytes.fromhex(VECTORS["segment_id"]),
        *(VECTORS[name] for name in names),
    )
    seal = SegmentSeal(bytes.fromhex(VECTORS["system_key"]), found)
    seal.verify_header(data)
    payloads = [bytes.fromhex(payload) for payload in VECTORS["payloads"]]
    assert list(read_records(seal, [data])) == numbered(payloads, 41)
    assert write_segment(seal, payloads)[0] == data


@given(payloads=PAYLOADS)
def test_what_was_written_is_read(payloads: list[bytes]) -> None:
    """From any number of replicas, and with the overhead that is said."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    data, _ = write_segment(seal, payloads)
    assert parse_header(data) == header()
    assert len(data) == HEADER_BYTES + sum(RECORD_OVERHEAD_BYTES - 4 + 4 + len(payload) for payload in payloads)
    assert list(read_records(seal, [data])) == numbered(payloads)
    assert list(read_records(seal, [data, data[:HEADER_BYTES]])) == numbered(payloads)
    assert list(read_records(seal, [])) == []


@given(payloads=PAYLOADS, at=st.integers(0, 10_000), more=st.binary(max_size=80))
def test_a_replica_that_was_cut_off_gives_its_whole_records(payloads: list[bytes], at: int, more: bytes) -> None:
    """Whatever comes where it ends: zeros, a part of a record, anything."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    data, ends = write_segment(seal, payloads)
    at = HEADER_BYTES + at % (len(data) - HEADER_BYTES + 1)
    whole = sum(1 for end in ends if end <= at)
    for tail in (b"", bytes(100), more):
        read = list(read_records(seal, [data[:at] + tail]))
        assert read[:whole] == numbered(payloads)[:whole]
        assert read == numbered(payloads)[: len(read)]
        if tail == b"":
            assert len(read) == whole


@given(payloads=PAYLOADS.filter(bool), data=st.data())
def test_a_flipped_bit_ends_one_replica_and_another_takes_over(payloads: list[bytes], data: st.DataObject) -> None:
    """Each replica damaged once: all that is whole in one of them at its place is read."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    whole, ends = write_segment(seal, payloads)

    def damage() -> tuple[bytes, int]:
        at = data.draw(st.integers(HEADER_BYTES, len(whole) - 1))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(flipped), sum(1 for end in ends if end <= at)

    (one, broken_in_one), (other, broken_in_other) = damage(), damage()
    assert list(read_records(seal, [one])) == numbered(payloads)[:broken_in_one]
    read = list(read_records(seal, [one, other]))
    if broken_in_one != broken_in_other:
        assert read == numbered(payloads)
    else:
        assert read in (numbered(payloads), numbered(payloads)[:broken_in_one])
    assert list(read_records(seal, [one, other, whole])) == numbered(payloads)


@given(payload=st.binary(max_size=40))
def test_a_record_opens_at_its_place_alone(payload: bytes) -> None:
    """Not under another sequence, segment, cluster or key."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    record = seal.seal_record(Record(7, payload))
    assert seal.open_record(record, 0, 7) == (Record(7, payload), len(record))
    for other in (
        SegmentSeal(bytes(32), header()),
        SegmentSeal(SYSTEM_KEY, header(incarnation=4)),
        SegmentSeal(SYSTEM_KEY, header()._replace(cluster_id=bytes(16))),
    ):
        assert other.open_record(record, 0, 7) is None
    moved = seal.seal_header() + seal.seal_record(Record(8, payload))
    assert list(read_records(seal, [moved])) == []


@given(data=st.binary(max_size=300))
def test_any_bytes_are_no_segment(data: bytes) -> None:
    """Refused, and never a record."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    assert list(read_records(seal, [data, seal.seal_header() + data])) == []
    with pytest.raises(Corrupt):
        parse_header(data)


@given(at=st.integers(0, HEADER_BYTES - 1), bit=st.integers(0, 7))
def test_a_changed_header_is_refused(at: int, bit: int) -> None:
    """Every byte of it is bound."""
    changed = bytearray(SegmentSeal(SYSTEM_KEY, header()).seal_header())
    changed[at] ^= 1 << bit
    try:
        found = parse_header(changed)
    except Corrupt:
        return
    with pytest.raises(SealBroken):
        SegmentSeal(SYSTEM_KEY, found).verify_header(changed)


def test_a_group_that_is_too_large_is_no_record() -> None:
    """What cannot be read again is not written."""
    seal = SegmentSeal(SYSTEM_KEY, header())
    with pytest.raises(ValueError, match="at most"):
        seal.seal_record(Record(7, bytes(PAYLOAD_BYTES_MAX + 1)))
