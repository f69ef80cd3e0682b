"""The sealed chunk: known bytes, round trips, and every way in which a frame could be out of place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.base.errors import Corrupt, SealBroken
from storage.base.ids import ChunkId
from storage.crypto.envelope import (
    FRAME_BYTES,
    HEADER_BYTES,
    SEALED_FRAME_BYTES,
    TAG_BYTES,
    ChunkHeader,
    Cipher,
    Opener,
    Sealer,
    frame_count,
    open_single_frame,
    open_span_into,
    open_whole,
    parse_cipher,
    parse_header,
    seal_single_frame,
    sealed_length,
    sealed_span,
)
from tests.vectors.compute import plaintext

CLUSTER_ID = b"cluster-id-16byt"
CHUNK_ID = ChunkId(b"session-" + b"00000007", 5)
DATA_KEY = bytes(range(32))
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "chunk-1.json").read_text())

plain_lengths = st.one_of(
    st.integers(1, 300), st.integers(FRAME_BYTES - 2, FRAME_BYTES + 2), st.integers(1, 4 * FRAME_BYTES)
)


def sealer(**other: object) -> Sealer:
    """For the chunk that all tests use, but for what is named."""
    return Sealer(**{"cluster_id": CLUSTER_ID, "chunk_id": CHUNK_ID, "data_key": DATA_KEY, **other})  # type: ignore[arg-type]


def opener(**other: object) -> Opener:
    """For the chunk that all tests use, but for what is named."""
    return Opener(**{"cluster_id": CLUSTER_ID, "chunk_id": CHUNK_ID, "data_key": DATA_KEY, **other})  # type: ignore[arg-type]


def frames_of(sealed: bytes | bytearray) -> list[bytes]:
    """The sealed frames after the header."""
    body = bytes(sealed[HEADER_BYTES:])
    return [body[at : at + SEALED_FRAME_BYTES] for at in range(0, len(body), SEALED_FRAME_BYTES)]


@pytest.mark.parametrize("vector", VECTORS["chunks"], ids=lambda vector: f"{vector['plain_length']} bytes")
def test_known_answers(vector: dict[str, object]) -> None:
    """The bytes of format 1 are what they always were."""
    chunk_id = ChunkId(bytes.fromhex(VECTORS["blob_id"]), VECTORS["chunk_index"])
    place = (bytes.fromhex(VECTORS["cluster_id"]), chunk_id, bytes.fromhex(VECTORS["data_key"]))
    plain = plaintext(int(str(vector["plain_length"])))
    sealed = Sealer(*place).seal_whole(plain)
    assert sealed[:96].hex() == vector["first_96_bytes"]
    assert sealed[-17:].hex() == vector["last_17_bytes"]
    assert len(sealed) == vector["sealed_length"] == sealed_length(len(plain))
    assert hashlib.sha256(sealed).hexdigest() == vector["sealed_sha256"]
    assert open_whole(Opener(*place), sealed) == plain


@given(st.data(), plain_lengths, st.sampled_from(Cipher))
@settings(max_examples=60, deadline=None)
def test_round_trip_is_the_same_by_frame_by_run_and_whole(data: st.DataObject, length: int, cipher: Cipher) -> None:
    """However a sealer is driven the bytes are the same, and every way of opening gives the plaintext back."""
    plain = plaintext(length)
    whole = bytes(sealer(cipher=cipher).seal_whole(memoryview(plain)))
    by_run, made, index = sealer(cipher=cipher), bytearray(), 0
    while index < frame_count(length):
        run = data.draw(st.integers(1, 3))
        piece = plain[index * FRAME_BYTES : (index + run) * FRAME_BYTES]
        made += by_run.seal_frames(index, piece, (index + run) * FRAME_BYTES >= length)
        index += run
    assert by_run.header() + made == whole
    assert len(whole) == sealed_length(length)
    assert open_whole(opener(cipher=cipher), memoryview(whole)) == plain
    frames = frames_of(whole)
    opened = [opener(cipher=cipher).open_frame(n, frame, n == len(frames) - 1) for n, frame in enumerate(frames)]
    assert b"".join(opened) == plain


@given(st.one_of(st.integers(1, 300), st.integers(FRAME_BYTES - 2, FRAME_BYTES)), st.sampled_from(Cipher))
@settings(max_examples=30, deadline=None)
def test_a_single_frame_is_sealed_as_by_a_sealer(length: int, cipher: Cipher) -> None:
    """The same bytes, for the first chunk of a blob."""
    chunk_id, plain = ChunkId(CHUNK_ID.blob_id, 0), plaintext(length)
    sealed = seal_single_frame(CLUSTER_ID, chunk_id.blob_id, DATA_KEY, memoryview(plain), cipher)
    assert sealed == sealer(chunk_id=chunk_id, cipher=cipher).seal_whole(plain)
    assert open_whole(opener(chunk_id=chunk_id, cipher=cipher), sealed) == plain


@given(st.integers(1, 300), st.sampled_from(Cipher))
@settings(max_examples=30, deadline=None)
def test_a_single_frame_is_opened_as_by_an_opener(length: int, cipher: Cipher) -> None:
    """Where it is whole, and nowhere else: not cut, not longer, not with another key or in another place."""
    chunk_id, plain = ChunkId(CHUNK_ID.blob_id, 0), plaintext(length)
    sealed = bytes(sealer(chunk_id=chunk_id, cipher=cipher).seal_whole(plain))
    place = (CLUSTER_ID, chunk_id.blob_id, DATA_KEY)
    assert open_single_frame(*place, sealed, cipher) == plain
    for other in range(2):
        strange = [*place]
        strange[other] = strange[other][1:] + b"?"
        with pytest.raises(SealBroken):
            open_single_frame(*strange, sealed, cipher)
    if cipher is not Cipher.NONE:
        for damaged in (sealed[:-1], sealed + b"?", sealed[:HEADER_BYTES] + b"?" + sealed[HEADER_BYTES + 1 :]):
            assert damaged != sealed
            with pytest.raises(SealBroken):
                open_single_frame(*place, damaged, cipher)
        with pytest.raises(SealBroken):
            open_single_frame(*place[:2], DATA_KEY[::-1], sealed, cipher)


@pytest.mark.parametrize("cipher", Cipher)
def test_a_single_frame_that_cannot_be_one_does_not_open(cipher: Cipher) -> None:
    """Too short, too long, a part of a longer chunk, or with a bit of its header changed."""
    chunk_id = ChunkId(CHUNK_ID.blob_id, 0)
    place = (CLUSTER_ID, chunk_id.blob_id, DATA_KEY)
    longer = bytes(sealer(chunk_id=chunk_id, cipher=cipher).seal_whole(bytes(FRAME_BYTES + 1)))
    whole = bytes(sealer(chunk_id=chunk_id, cipher=cipher).seal_whole(b"plaintext"))
    strange = [b"", whole[:HEADER_BYTES], whole[: HEADER_BYTES + TAG_BYTES], longer]
    strange += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(HEADER_BYTES)]
    if cipher is not Cipher.NONE:
        strange.append(longer[: HEADER_BYTES + SEALED_FRAME_BYTES])
    for sealed in strange:
        with pytest.raises(SealBroken):
            open_single_frame(*place, sealed, cipher)


@pytest.mark.parametrize("length", [0, FRAME_BYTES + 1])
def test_a_single_frame_is_neither_empty_nor_longer(length: int) -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match="single frame"):
        seal_single_frame(CLUSTER_ID, CHUNK_ID.blob_id, DATA_KEY, bytes(length))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_single_frame_wants_ids_and_keys_of_their_length(place: int) -> None:
    """A short id would shift what is bound."""
    arguments = [CLUSTER_ID, CHUNK_ID.blob_id, DATA_KEY]
    arguments[place] = arguments[place][1:]
    with pytest.raises(ValueError, match="bytes each"):
        seal_single_frame(*arguments, b"plaintext")


def test_sealed_bytes_do_not_hold_the_plaintext_and_unsealed_ones_do() -> None:
    """The cipher none exists to show that a search of the disk would find a text."""
    text = b"a text that somebody wants to find" * 3
    assert text not in bytes(sealer().seal_whole(text))
    assert text in bytes(sealer(cipher=Cipher.NONE).seal_whole(text))


OTHERS = {
    "cluster id": {"cluster_id": b"cluster-id-16byX"},
    "blob id": {"chunk_id": CHUNK_ID._replace(blob_id=b"session-" + b"00000008")},
    "session": {"chunk_id": CHUNK_ID._replace(blob_id=b"sessioN-" + b"00000007")},
    "chunk index": {"chunk_id": CHUNK_ID._replace(chunk_index=6)},
    "data key": {"data_key": bytes(range(1, 33))},
    "cipher": {"cipher": Cipher.NONE},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_frame_opens_only_where_it_belongs(other: dict[str, object]) -> None:
    """Each part of the associated data that is known to the opener, and the key, is bound."""
    sealed = sealer().seal_whole(b"x" * 100)
    with pytest.raises(SealBroken):
        opener(**other).open_frame(0, sealed[HEADER_BYTES:], True)
    back = sealer(**other).seal_whole(b"x" * 100)
    with pytest.raises(SealBroken):
        opener().open_frame(0, back[HEADER_BYTES:], True)
    if "data_key" not in other:
        with pytest.raises(SealBroken):
            opener(**other).check_header(sealed)


def test_frame_index_and_final_bit_are_bound() -> None:
    """STREAM: no frame can be moved, repeated, dropped at the end or followed by more."""
    frames = frames_of(sealer().seal_whole(plaintext(3 * FRAME_BYTES)))
    assert opener().open_frame(1, frames[1], False)
    for index, frame, final in [(0, frames[1], False), (2, frames[1], False), (1, frames[1], True)]:
        with pytest.raises(SealBroken):
            opener().open_frame(index, frame, final)
    with pytest.raises(SealBroken):
        opener().open_frame(2, frames[2], False)


def rearrangements(frames: list[bytes]) -> dict[str, list[bytes]]:
    """Ways to make another chunk of a chunk's own frames."""
    return {
        "swapped": [frames[1], frames[0], frames[2]],
        "first dropped": frames[1:],
        "middle dropped": [frames[0], frames[2]],
        "last dropped": frames[:2],
        "all dropped": [],
        "repeated": [frames[0], frames[0], *frames[1:]],
        "last repeated": [*frames, frames[2]],
        "one byte short": [*frames[:2], frames[2][:-1]],
        "one byte more": [*frames[:2], frames[2] + b"\0"],
        "a tag more": [*frames, bytes(TAG_BYTES)],
        "half a frame more": [*frames, frames[0][:1000]],
        "only the tag of the last": [*frames[:2], frames[2][-TAG_BYTES:]],
    }


@pytest.mark.parametrize("name", rearrangements([b"", b"", b""]))
@pytest.mark.parametrize("tail", [1, 1000, FRAME_BYTES])
def test_truncated_extended_and_misordered_chunks_do_not_open(name: str, tail: int) -> None:
    """A whole chunk opens only as it was sealed."""
    sealed = sealer().seal_whole(plaintext(2 * FRAME_BYTES + tail))
    changed = rearrangements(frames_of(sealed))[name]
    with pytest.raises(SealBroken):
        open_whole(opener(), bytes(sealed[:HEADER_BYTES]) + b"".join(changed))


@given(st.data(), st.sampled_from([1, 200, FRAME_BYTES + 7]))
@settings(max_examples=60, deadline=None)
def test_any_changed_bit_is_noticed(data: st.DataObject, length: int) -> None:
    """Header, ciphertext and tag alike."""
    sealed = sealer().seal_whole(plaintext(length))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SealBroken):
        open_whole(opener(), sealed)


class RecordingAead:
    """Stands where AESGCM stands and notes what each call was bound to."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, bytes]] = []

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes) -> bytes:
        """As AESGCM, in length."""
        self.calls.append((nonce, associated_data))
        return bytes(len(data) + TAG_BYTES)

    def encrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes, buf: memoryview) -> int:
        """As AESGCM, in length."""
        self.calls.append((nonce, associated_data))
        return len(buf)


@given(st.integers(1, 12 * FRAME_BYTES))
@settings(max_examples=30, deadline=None)
def test_no_nonce_is_used_twice_under_a_data_key(length: int) -> None:
    """Every frame of a chunk has a nonce of its own, 12 bytes, with 46 bytes bound."""
    chunk, recording = sealer(), RecordingAead()
    chunk._aead = recording  # type: ignore[assignment]
    chunk.seal_frames(0, bytes(length), True)
    nonces = [nonce for nonce, _ in recording.calls]
    assert len(set(nonces)) == len(nonces) == frame_count(length)
    assert {(len(nonce), len(bound)) for nonce, bound in recording.calls} == {(12, 46)}
    assert [nonce[-1] for nonce in nonces] == [0] * (len(nonces) - 1) + [1]


def test_a_sealer_refuses_a_second_turn() -> None:
    """The same index again, a gap, anything after the final frame: each would risk a nonce."""
    chunk = sealer()
    chunk.seal_frame(0, bytes(FRAME_BYTES), False)
    for index in (0, 2):
        with pytest.raises(ValueError, match="out of turn"):
            chunk.seal_frame(index, bytes(FRAME_BYTES), False)
    chunk.seal_frame(1, b"end", True)
    for index in (1, 2):
        with pytest.raises(ValueError, match="out of turn"):
            chunk.seal_frame(index, b"end", True)


@pytest.mark.parametrize(
    ("length", "final"), [(0, True), (0, False), (1, False), (FRAME_BYTES - 1, False), (FRAME_BYTES + 1, False)]
)
def test_a_sealer_refuses_frames_that_the_format_does_not_know(length: int, final: bool) -> None:
    """Only the last frame may be short, none is empty, none is longer."""
    with pytest.raises(ValueError, match="frame"):
        sealer().seal_frame(0, bytes(length), final)


def test_empty_chunks_do_not_exist() -> None:
    """A zero-byte object has no chunk at all."""
    with pytest.raises(ValueError, match="1 byte"):
        sealer().seal_whole(b"")
    with pytest.raises(SealBroken):
        open_whole(opener(), sealer().header())


@given(plain_lengths, st.data())
@settings(max_examples=30)
def test_a_span_opens_into_room_for_its_frames(length: int, data: st.DataObject) -> None:
    """Any range, into room that is as long or longer; less room, or frames of another span, are refused."""
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    plain, span = plaintext(length), sealed_span(start, end, length)
    frames = sealer().seal_whole(plain)[span.offset : span.offset + span.length]
    first, last = span.first_frame * FRAME_BYTES, min((span.last_frame + 1) * FRAME_BYTES, length)
    room = memoryview(bytearray(last - first + data.draw(st.integers(0, 5))))
    opened = open_span_into(opener(), span, frames, length, room)
    assert opened == plain[first:last] == room[: last - first]
    with pytest.raises(ValueError, match="as long as the span says"):
        open_span_into(opener(), span, frames, length, room[: last - first - 1])
    with pytest.raises(ValueError, match="as long as the span says"):
        open_span_into(opener(), span, frames[:-1], length, room)
    with pytest.raises(SealBroken):
        open_span_into(opener(), span, bytes(len(frames)), length, room)


@pytest.mark.parametrize("other", [{"cluster_id": b"short"}, {"data_key": b"short"}, {"chunk_id": ChunkId(b"s", 0)}])
def test_ids_and_keys_of_a_wrong_length_are_refused(other: dict[str, object]) -> None:
    """A short id would shift what is bound."""
    with pytest.raises(ValueError, match="bytes"):
        sealer(**other)


@given(st.data(), plain_lengths)
@settings(max_examples=80, deadline=None)
def test_a_span_holds_exactly_the_frames_of_the_range(data: st.DataObject, length: int) -> None:
    """Opening just those sealed bytes gives a plaintext that covers the range, and no frame too many."""
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, length))
    span = sealed_span(start, end, length)
    plain = plaintext(length)
    sealed = bytes(sealer().seal_whole(plain))[span.offset : span.offset + span.length]
    opened = b""
    for index in range(span.first_frame, span.last_frame + 1):
        frame = sealed[(index - span.first_frame) * SEALED_FRAME_BYTES :][:SEALED_FRAME_BYTES]
        opened += opener().open_frame(index, frame, index == frame_count(length) - 1)
    base = span.first_frame * FRAME_BYTES
    assert opened[start - base : end - base] == plain[start:end]
    assert base <= start < base + FRAME_BYTES
    assert end <= base + len(opened) < end + FRAME_BYTES


@pytest.mark.parametrize("span", [(0, 0, 10), (5, 5, 10), (6, 5, 10), (0, 11, 10), (-1, 5, 10)])
def test_spans_outside_the_chunk_are_refused(span: tuple[int, int, int]) -> None:
    """Empty, backwards, beyond the end, before the start."""
    with pytest.raises(ValueError, match="no range"):
        sealed_span(*span)


@pytest.mark.parametrize("cipher", Cipher)
def test_a_header_says_whose_it_is(cipher: Cipher) -> None:
    """Salvage reads it back, and sealed and unsealed chunks cannot be taken for each other."""
    sealed = sealer(cipher=cipher).seal_whole(b"x")
    assert parse_header(sealed) == ChunkHeader(CLUSTER_ID, CHUNK_ID, cipher)
    opener(cipher=cipher).check_header(memoryview(sealed))


def test_sealed_and_unsealed_formats_share_no_mark() -> None:
    """Magic and version byte both differ."""
    sealed, unsealed = sealer().header(), sealer(cipher=Cipher.NONE).header()
    assert sealed[:4] != unsealed[:4]
    assert sealed[4] == 1
    assert unsealed[4] == 255
    with pytest.raises(Corrupt):
        parse_header(sealed[:4] + unsealed[4:])


@given(st.one_of(st.binary(max_size=80), st.builds(lambda tail: b"FBC1\x01\x10" + tail, st.binary(min_size=58))))
@settings(max_examples=200)
def test_hostile_headers_are_corrupt_or_exact(raw: bytes) -> None:
    """Whatever parses is byte for byte what a sealer of that chunk writes."""
    try:
        header = parse_header(raw)
    except Corrupt:
        return
    assert Sealer(header.cluster_id, header.chunk_id, DATA_KEY, header.cipher).header() == raw[:HEADER_BYTES]


def test_unsealed_storage_needs_the_environments_consent() -> None:
    """A configuration file alone cannot switch sealing off."""
    assert parse_cipher("aes-256-gcm", {}) is Cipher.AES_256_GCM
    assert parse_cipher("none", {"FROSTBYTE_UNSAFE_NO_SEALING": "1"}) is Cipher.NONE
    for environment in ({}, {"FROSTBYTE_UNSAFE_NO_SEALING": ""}, {"FROSTBYTE_UNSAFE_NO_SEALING": "true"}):
        with pytest.raises(ValueError, match="FROSTBYTE_UNSAFE_NO_SEALING"):
            parse_cipher("none", environment)
    with pytest.raises(ValueError, match="unknown cipher"):
        parse_cipher("rot13", {"FROSTBYTE_UNSAFE_NO_SEALING": "1"})


def test_repr_shows_no_secret() -> None:
    """Neither end of a chunk prints its key."""
    shown = repr(sealer()) + repr(opener()) + repr(vars(sealer()))
    assert DATA_KEY.hex() not in shown
    assert repr(DATA_KEY) not in shown
