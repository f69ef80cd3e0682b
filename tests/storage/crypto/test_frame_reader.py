"""The frame reader: any range, in any pieces, and every way in which a stream can be wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base.errors import Corrupt, SealBroken
from storage.base.ids import ChunkId
from storage.crypto.envelope import FRAME_BYTES, SEALED_FRAME_BYTES, Cipher, Opener, Sealer
from storage.crypto.frame_reader import FrameReader
from tests.vectors.compute import plaintext

PLACE = (b"cluster-id-16byt", ChunkId(b"session-" + b"00000007", 5), bytes(range(32)))
LENGTH = 4 * FRAME_BYTES + 777
PLAIN = plaintext(LENGTH)
SEALED = bytes(Sealer(*PLACE).seal_whole(PLAIN))

ranges = st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH)).map(sorted).filter(lambda pair: pair[0] < pair[1])


def reader_of(start: int, end: int) -> tuple[FrameReader, bytes]:
    """A reader and the sealed bytes that its span asks for."""
    reader = FrameReader(Opener(*PLACE), start, end, LENGTH)
    return reader, SEALED[reader.span.offset : reader.span.offset + reader.span.length]


def cut(sealed: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Pieces of these sizes, over and over."""
    at, turn = 0, 0
    while at < len(sealed):
        yield sealed[at : at + sizes[turn % len(sizes)]]
        at += sizes[turn % len(sizes)]
        turn += 1


@given(ranges, st.lists(st.sampled_from([100, 4096, 65536, SEALED_FRAME_BYTES, 131072, 300_000]), min_size=1))
@settings(max_examples=120, deadline=None)
def test_any_range_in_any_pieces(pair: list[int], sizes: list[int]) -> None:
    """The blocks add up to the range, and the position follows what was handed out."""
    start, end = pair
    reader, sealed = reader_of(start, end)
    out = bytearray()
    for piece in cut(sealed, sizes):
        out += reader.feed(memoryview(piece))
        assert reader.position == start + len(out)
    reader.finish()
    assert out == PLAIN[start:end]


def test_byte_by_byte() -> None:
    """The smallest pieces work as well, and nothing comes before a frame is whole."""
    reader, sealed = reader_of(LENGTH - 5, LENGTH)
    out = [bytes(reader.feed(sealed[at : at + 1])) for at in range(len(sealed))]
    assert out == [b""] * (len(sealed) - 1) + [PLAIN[-5:]]


def test_fed_buffers_may_be_reused() -> None:
    """A piece's buffer can be overwritten after the call."""
    reader, sealed = reader_of(0, LENGTH)
    out, buffer = bytearray(), bytearray(50_000)
    for at in range(0, len(sealed), len(buffer)):
        piece = sealed[at : at + len(buffer)]
        buffer[: len(piece)] = piece
        out += reader.feed(memoryview(buffer)[: len(piece)])
        buffer[:] = bytes(len(buffer))
    reader.finish()
    assert out == PLAIN


def test_a_short_stream_does_not_finish() -> None:
    """Whole frames came, but not all of them."""
    reader, sealed = reader_of(0, LENGTH)
    reader.feed(sealed[: 2 * SEALED_FRAME_BYTES])
    with pytest.raises(Corrupt, match="missing"):
        reader.finish()


def test_more_than_the_span_is_refused() -> None:
    """One byte too many, alone or with the rest."""
    reader, sealed = reader_of(10, 20)
    with pytest.raises(Corrupt, match="more"):
        reader.feed(sealed + b"\0")
    reader, sealed = reader_of(10, 20)
    reader.feed(sealed)
    reader.finish()
    with pytest.raises(Corrupt, match="more"):
        reader.feed(b"\0")


@given(st.data(), ranges)
@settings(max_examples=40, deadline=None)
def test_a_changed_bit_stops_the_reader_and_another_goes_on(data: st.DataObject, pair: list[int]) -> None:
    """What came out before is right, and a second replica continues from the position."""
    start, end = pair
    reader, sealed = reader_of(start, end)
    broken = bytearray(sealed)
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= 64
    out = bytearray()
    with pytest.raises(SealBroken):
        for piece in cut(bytes(broken), [SEALED_FRAME_BYTES]):
            out += reader.feed(piece)
    assert out == PLAIN[start : reader.position]
    second, rest = reader_of(reader.position, end)
    out += second.feed(rest)
    second.finish()
    assert out == PLAIN[start:end]


def test_frames_of_another_range_do_not_open() -> None:
    """A store that answers with the wrong offset is found out."""
    reader, sealed = reader_of(FRAME_BYTES, 2 * FRAME_BYTES)
    with pytest.raises(SealBroken):
        reader.feed(SEALED[64 : 64 + len(sealed)])


def test_a_chunk_that_claims_to_be_shorter_or_longer_does_not_open() -> None:
    """The final bit ties the frames to the length that the metadata gives."""
    whole = SEALED[64:]
    shorter = FrameReader(Opener(*PLACE), 0, 4 * FRAME_BYTES, 4 * FRAME_BYTES)
    with pytest.raises(SealBroken):
        shorter.feed(whole[: shorter.span.length])
    longer = FrameReader(Opener(*PLACE), 0, LENGTH, LENGTH + 1)
    with pytest.raises((SealBroken, Corrupt)):
        longer.feed(whole)
        longer.finish()


def test_unsealed_chunks_are_read_the_same_way() -> None:
    """The one test that switches sealing off still goes through this reader."""
    sealed = Sealer(*PLACE, Cipher.NONE).seal_whole(PLAIN)
    reader = FrameReader(Opener(*PLACE, Cipher.NONE), 70_000, 200_000, LENGTH)
    assert reader.feed(sealed[reader.span.offset :][: reader.span.length]) == PLAIN[70_000:200_000]
