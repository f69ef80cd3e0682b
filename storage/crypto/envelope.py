"""SANS-IO. The sealed chunk, format 1: frames of 64 KiB under AES-256-GCM, bound to their place (STREAM).

A chunk is `header ++ frame ++ frame …`; ARCHITECTURE.md has the bytes. Each frame's nonce is its index and a bit that
says whether it is the last, so a frame moved, dropped, repeated or added breaks its tag. The associated data binds the
cluster, the chunk and the format; the header repeats them in the clear, for salvage, and is compared, never trusted.
STREAM: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance",
CRYPTO 2015, section 7.

Rules that the callers' safety rests on, held here:
- one data key seals one chunk; a Sealer takes its frames in order and once, so that no nonce is used twice;
- every frame but the last is full, and a chunk is never empty;
- the cipher `none` has another magic and another version byte. It exists for one test, which shows that searching the
  disk for a plaintext would find one, and `parse_cipher` refuses it unless the environment says so in so many words.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.base.blocks import BLOCKS
from storage.base.errors import Corrupt, SealBroken
from storage.base.ids import BLOB_ID_BYTES, CLUSTER_ID_BYTES, ChunkId

Buffer = bytes | bytearray | memoryview

FRAME_LOG2 = 16
FRAME_BYTES = 1 << FRAME_LOG2
TAG_BYTES = 16
SEALED_FRAME_BYTES = FRAME_BYTES + TAG_BYTES
HEADER_BYTES = 64
DATA_KEY_BYTES = 32
CHUNK_PLAIN_BYTES_MAX = 1 << 30
"""far above any chunk size that is configured, far below where the frame counter would end"""

UNSAFE_SWITCH = "FROSTBYTE_UNSAFE_NO_SEALING"

_HEADER = struct.Struct(">4sBB2x16s16sI20x")
_BOUND_PLACE = struct.Struct(">16sBB16sI")
_FRAME_PLACE = struct.Struct(">IB")
_NONCE_PREFIX = bytes(7)
_BOUND_PADDING = bytes(3)
_NO_TAG = bytes(TAG_BYTES)
_ONLY_NONCE = _NONCE_PREFIX + _FRAME_PLACE.pack(0, True)
_ONLY_PLACE = _FRAME_PLACE.pack(0, True) + _BOUND_PADDING
"""of a frame that is the first and the last"""


class Cipher(enum.StrEnum):
    """How frames are sealed; chosen once for a process, never read from stored bytes."""

    AES_256_GCM = "aes-256-gcm"
    NONE = "none"


_MARKS: dict[Cipher, tuple[bytes, int]] = {Cipher.AES_256_GCM: (b"FBC1", 1), Cipher.NONE: (b"FBU1", 255)}
"""magic and version byte; the version is in every frame's associated data as well"""


def parse_cipher(name: str, environment: Mapping[str, str]) -> Cipher:
    """The configured cipher. ValueError for an unknown one, and for `none` without FROSTBYTE_UNSAFE_NO_SEALING=1."""
    try:
        cipher = Cipher(name)
    except ValueError:
        raise ValueError(f"unknown cipher {name!r}; there is {Cipher.AES_256_GCM.value!r}") from None
    if cipher is Cipher.NONE and environment.get(UNSAFE_SWITCH) != "1":
        raise ValueError(f"cipher 'none' stores objects in the clear; it is refused unless {UNSAFE_SWITCH}=1")
    return cipher


class ChunkHeader(NamedTuple):
    """What the first 64 bytes of a sealed chunk say. Not secret, and not proven until a frame has opened."""

    cluster_id: bytes
    chunk_id: ChunkId
    cipher: Cipher


class SealedSpan(NamedTuple):
    """The sealed bytes [offset, offset + length) of a chunk that a plaintext range needs; frames are inclusive."""

    offset: int
    length: int
    first_frame: int
    last_frame: int


def frame_count(plain_length: int) -> int:
    """Frames of a chunk of so many plaintext bytes (at least one)."""
    _require_plain_length(plain_length)
    return (plain_length + FRAME_BYTES - 1) >> FRAME_LOG2


def sealed_length(plain_length: int) -> int:
    """Bytes of the whole sealed chunk, header included."""
    return HEADER_BYTES + plain_length + TAG_BYTES * frame_count(plain_length)


def sealed_span(start: int, end: int, plain_length: int) -> SealedSpan:
    """Where the frames of the plaintext range [start, end) of a chunk are. ValueError for an empty or outside range."""
    if not 0 <= start < end <= plain_length:
        raise ValueError(f"no range {start}..{end} in a chunk of {plain_length} bytes")
    first, last = start >> FRAME_LOG2, (end - 1) >> FRAME_LOG2
    plain_end = min((last + 1) << FRAME_LOG2, plain_length)
    length = plain_end - (first << FRAME_LOG2) + (last - first + 1) * TAG_BYTES
    return SealedSpan(HEADER_BYTES + first * SEALED_FRAME_BYTES, length, first, last)


def parse_header(raw: Buffer) -> ChunkHeader:
    """The header of a sealed chunk, from its first 64 bytes or more. Corrupt when it is not one of format 1."""
    if len(raw) < HEADER_BYTES:
        raise Corrupt("a chunk's header has 64 bytes")
    magic, version, log2, cluster_id, blob_id, index = _HEADER.unpack_from(raw)
    for cipher, mark in _MARKS.items():
        if mark == (magic, version) and log2 == FRAME_LOG2:
            header = ChunkHeader(cluster_id, ChunkId(blob_id, index), cipher)
            if format_header(header) == raw[:HEADER_BYTES]:
                return header
    raise Corrupt("not the header of a sealed chunk of format 1")


def format_header(header: ChunkHeader) -> bytes:
    """The inverse of parse_header: 64 bytes."""
    magic, version = _MARKS[header.cipher]
    return _HEADER.pack(magic, version, FRAME_LOG2, header.cluster_id, *header.chunk_id)


class _Aead(Protocol):
    """The part of AESGCM that is used here."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes: ...

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int: ...


class _Unsealed:
    """The cipher `none`: plaintext and a tag of zeros, in AESGCM's shape."""

    def encrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        return bytes(data) + _NO_TAG

    def encrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        memoryview(buf)[:] = self.encrypt(nonce, data, associated_data)
        return len(buf)

    def decrypt(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None) -> bytes:
        if data[-TAG_BYTES:] != _NO_TAG:
            raise InvalidTag
        return bytes(data[:-TAG_BYTES])

    def decrypt_into(self, nonce: Buffer, data: Buffer, associated_data: Buffer | None, buf: Buffer) -> int:
        memoryview(buf)[:] = self.decrypt(nonce, data, associated_data)
        return len(buf)


class _Frames:
    """What sealing and opening share: the cipher under the chunk's key, and the place that every frame is bound to."""

    def __init__(
        self, cluster_id: bytes, chunk_id: ChunkId, data_key: bytes, cipher: Cipher = Cipher.AES_256_GCM
    ) -> None:
        if len(cluster_id) != CLUSTER_ID_BYTES or len(chunk_id.blob_id) != BLOB_ID_BYTES:
            raise ValueError("a cluster id and a blob id have 16 bytes each")
        if len(data_key) != DATA_KEY_BYTES:
            raise ValueError("a data key has 32 bytes")
        self._header = ChunkHeader(cluster_id, chunk_id, cipher)
        self._aead: _Aead = AESGCM(data_key) if cipher is Cipher.AES_256_GCM else _Unsealed()
        self._bound = _BOUND_PLACE.pack(cluster_id, _MARKS[cipher][1], FRAME_LOG2, *chunk_id)

    def _place(self, frame_index: int, final: bool) -> tuple[bytes, bytes]:
        """(nonce, associated data) of a frame: 12 and 46 bytes."""
        place = _FRAME_PLACE.pack(frame_index, final)
        return _NONCE_PREFIX + place, self._bound + place + _BOUND_PADDING


class Sealer(_Frames):
    """Seals one chunk, once. Frames are taken in order; a resend sends the bytes already made."""

    _next_frame = 0
    _finished = False

    def header(self) -> bytes:
        """The 64 bytes that go before the first frame."""
        return format_header(self._header)

    def seal_frame(self, frame_index: int, plaintext: Buffer, final: bool) -> bytes:
        """One frame: 64 KiB of plaintext, or 1 byte to 64 KiB for the final one, and 16 bytes more out.

        ValueError for another length, for a frame out of turn and after the final one.
        """
        self._take_turns(frame_index, 1, len(plaintext), final)
        nonce, bound = self._place(frame_index, final)
        return self._aead.encrypt(nonce, plaintext, bound)

    def seal_frames(self, first_frame: int, plaintext: Buffer, final: bool) -> bytes | memoryview:
        """As many frames as the plaintext has, in one buffer; unless final its length is a multiple of 64 KiB."""
        if len(plaintext) <= FRAME_BYTES:
            return self.seal_frame(first_frame, plaintext, final)
        sealed = BLOCKS.take(len(plaintext) + TAG_BYTES * frame_count(len(plaintext)))
        self._seal_into(sealed, first_frame, memoryview(plaintext), final)
        return sealed

    def seal_whole(self, plaintext: Buffer) -> memoryview:
        """A chunk whose plaintext is all there: header and frames in one buffer."""
        sealed = BLOCKS.take(sealed_length(len(plaintext)))
        sealed[:HEADER_BYTES] = self.header()
        self._seal_into(sealed[HEADER_BYTES:], 0, memoryview(plaintext), True)
        return sealed

    def _seal_into(self, sealed: memoryview, first_frame: int, plaintext: memoryview, final: bool) -> None:
        count = frame_count(len(plaintext))
        self._take_turns(first_frame, count, len(plaintext), final)
        encrypt_into, last_frame = self._aead.encrypt_into, first_frame + count - 1
        offset = at = 0
        for frame_index in range(first_frame, first_frame + count):
            nonce, bound = self._place(frame_index, final and frame_index == last_frame)
            frame = plaintext[offset : offset + FRAME_BYTES]
            encrypt_into(nonce, frame, bound, sealed[at : at + len(frame) + TAG_BYTES])
            offset += FRAME_BYTES
            at += SEALED_FRAME_BYTES

    def _take_turns(self, frame_index: int, count: int, length: int, final: bool) -> None:
        """Of so many frames, with `length` bytes together."""
        if frame_index != self._next_frame or self._finished:
            raise ValueError(f"frame {frame_index} is out of turn: frames are sealed in order and once")
        last_length = length - (count - 1) * FRAME_BYTES
        if last_length > FRAME_BYTES or last_length < (1 if final else FRAME_BYTES):
            raise ValueError(f"a frame of {last_length} bytes: all but the last are full, and none is empty")
        self._next_frame += count
        self._finished = final


def seal_single_frame(
    cluster_id: bytes, blob_id: bytes, data_key: bytes, plaintext: Buffer, cipher: Cipher = Cipher.AES_256_GCM
) -> bytearray:
    """What a Sealer's seal_whole makes of the first chunk of a blob, where that is one frame of 1 byte to 64 KiB: most
    objects are no more, and without the state of a Sealer it costs half. data_key: of no other chunk. ValueError."""
    length = len(plaintext)
    if len(cluster_id) != CLUSTER_ID_BYTES or len(blob_id) != BLOB_ID_BYTES or len(data_key) != DATA_KEY_BYTES:
        raise ValueError("a cluster id and a blob id have 16 bytes each, and a data key 32")
    if not 0 < length <= FRAME_BYTES:
        raise ValueError(f"a single frame holds 1 byte to {FRAME_BYTES}, not {length}")
    magic, version = _MARKS[cipher]
    aead: _Aead = AESGCM(data_key) if cipher is Cipher.AES_256_GCM else _Unsealed()
    bound = _BOUND_PLACE.pack(cluster_id, version, FRAME_LOG2, blob_id, 0) + _ONLY_PLACE
    sealed = bytearray(HEADER_BYTES + length + TAG_BYTES)
    _HEADER.pack_into(sealed, 0, magic, version, FRAME_LOG2, cluster_id, blob_id, 0)
    aead.encrypt_into(_ONLY_NONCE, plaintext, bound, memoryview(sealed)[HEADER_BYTES:])
    return sealed


class Opener(_Frames):
    """Opens the frames of one chunk, in any order. Every failure is SealBroken and names the chunk and the frame."""

    def check_header(self, raw: Buffer) -> None:
        """SealBroken unless the first 64 bytes are exactly this chunk's header."""
        if raw[:HEADER_BYTES] != format_header(self._header):
            raise SealBroken("the chunk's header is of another chunk or damaged", chunk_id=str(self._header.chunk_id))

    def open_frame(self, frame_index: int, sealed: Buffer, final: bool) -> bytes:
        """The plaintext of one frame, 16 bytes shorter than the sealed one."""
        self._require_length(frame_index, len(sealed), final)
        nonce, bound = self._place(frame_index, final)
        try:
            return self._aead.decrypt(nonce, sealed, bound)
        except InvalidTag:
            raise self._broken(frame_index) from None

    def open_frame_into(self, frame_index: int, sealed: Buffer, final: bool, plaintext: Buffer) -> None:
        """The same into a writable buffer of just the right length; its content is undefined after SealBroken."""
        self._require_length(frame_index, len(sealed), final)
        nonce, bound = self._place(frame_index, final)
        try:
            self._aead.decrypt_into(nonce, sealed, bound, plaintext)
        except InvalidTag:
            raise self._broken(frame_index) from None

    def _require_length(self, frame_index: int, length: int, final: bool) -> None:
        if length > SEALED_FRAME_BYTES or length < (TAG_BYTES + 1 if final else SEALED_FRAME_BYTES):
            raise self._broken(frame_index)

    def _broken(self, frame_index: int) -> SealBroken:
        return SealBroken("a frame does not open", chunk_id=str(self._header.chunk_id), frame=str(frame_index))


def open_whole(opener: Opener, sealed: Buffer) -> bytes | bytearray:
    """The plaintext of a whole sealed chunk: header compared, every frame opened, nothing missing and nothing more."""
    opener.check_header(sealed)
    frames = memoryview(sealed)[HEADER_BYTES:]
    count = (len(frames) + SEALED_FRAME_BYTES - 1) // SEALED_FRAME_BYTES
    if count <= 1:
        return opener.open_frame(0, frames, True)
    plain_length = len(frames) - count * TAG_BYTES
    if frame_count(plain_length) != count:
        raise SealBroken("a chunk does not end with a frame")
    plaintext = bytearray(plain_length)
    open_span_into(opener, sealed_span(0, plain_length, plain_length), frames, plain_length, memoryview(plaintext))
    return plaintext


def open_single_frame(
    cluster_id: bytes, blob_id: bytes, data_key: bytes, sealed: bytes, cipher: Cipher = Cipher.AES_256_GCM
) -> bytes:
    """What open_whole gives of the first chunk of a blob, where that is one frame; without the state of an Opener it
    costs half. SealBroken, also of what is longer than a frame."""
    if not HEADER_BYTES + TAG_BYTES < len(sealed) <= HEADER_BYTES + SEALED_FRAME_BYTES:
        raise SealBroken("a chunk of one frame has another length", chunk_id=str(ChunkId(blob_id, 0)))
    magic, version = _MARKS[cipher]
    if sealed[:HEADER_BYTES] != _HEADER.pack(magic, version, FRAME_LOG2, cluster_id, blob_id, 0):
        raise SealBroken("the chunk's header is of another chunk or damaged", chunk_id=str(ChunkId(blob_id, 0)))
    aead: _Aead = AESGCM(data_key) if cipher is Cipher.AES_256_GCM else _Unsealed()
    bound = _BOUND_PLACE.pack(cluster_id, version, FRAME_LOG2, blob_id, 0) + _ONLY_PLACE
    try:
        return aead.decrypt(_ONLY_NONCE, sealed[HEADER_BYTES:], bound)
    except InvalidTag:
        raise SealBroken("a frame does not open", chunk_id=str(ChunkId(blob_id, 0)), frame="0") from None


def open_span_into(opener: Opener, span: SealedSpan, sealed: Buffer, plain_length: int, room: memoryview) -> memoryview:
    """Open the frames of a span of a chunk of plain_length bytes one behind the other into a writable buffer; what of
    it they fill. SealBroken, with its content undefined; ValueError where the room is too small."""
    frames, final = memoryview(sealed), frame_count(plain_length) - 1
    count = span.last_frame - span.first_frame + 1
    plaintext = room[: span.length - count * TAG_BYTES]
    if len(frames) != span.length or len(plaintext) != span.length - count * TAG_BYTES:
        raise ValueError("a span's frames and the room for them are as long as the span says")
    for index in range(count):
        frame = frames[index * SEALED_FRAME_BYTES : (index + 1) * SEALED_FRAME_BYTES]
        place = plaintext[index << FRAME_LOG2 : (index + 1) << FRAME_LOG2]
        opener.open_frame_into(span.first_frame + index, frame, span.first_frame + index == final, place)
    return plaintext


def _require_plain_length(plain_length: int) -> None:
    if not 0 < plain_length <= CHUNK_PLAIN_BYTES_MAX:
        raise ValueError(f"a chunk holds 1 byte to {CHUNK_PLAIN_BYTES_MAX}, not {plain_length}")
