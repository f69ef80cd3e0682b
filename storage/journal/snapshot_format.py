"""SANS-IO. The bytes of a snapshot: the database's file in pieces, and a manifest that says what they add up to.

    piece    snapshot-<id>-<number>         manifest   snapshot-<id>
      0   4  magic "FBS1"                              "FBM1"
      4   1  format version = 1
      5   3  zero
      8  16  cluster id
     24  16  snapshot id: sequence (u64) ++ 8 random bytes
     40   4  number of the piece                       how many pieces there are
     44   4  version of the keyring's system key
     48  16  zero
     64      AES-256-GCM, associated data = label ++ the 64 bytes before, nonce
             4 × 0 ++ number (u64)                     4 × 0xff ++ 8 × 0
             of a zlib stream of up to                 of msgpack of Manifest
             PIECE_BYTES of the file

The key is HKDF-Expand(system key, label ++ cluster id ++ snapshot id). Pieces are made once each, of one file, so a
nonce is used once. The manifest is stored last: a snapshot without one is what is left of an attempt.
"""

from __future__ import annotations

import struct
import zlib

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.base.errors import Corrupt, SealBroken
from storage.crypto.keys import derive_key

PIECE_BYTES = 4 << 20
SNAPSHOT_ID_BYTES = 16
FORMAT = 1
HEAD_BYTES = 64

_LABEL = b"frostbyte snapshot 1"
_PIECE_MAGIC = b"FBS1"
_MANIFEST_MAGIC = b"FBM1"
_HEAD = struct.Struct(">4sB3x16s16sII16x")
_MANIFEST_NONCE = b"\xff" * 4 + bytes(8)
_COMPRESSION = 1
"""zlib's fastest: records are mostly names, ids and sealed bodies"""
_INFLATED_BYTES_MAX = PIECE_BYTES


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot is of. Later fields may follow."""

    history: int
    sequence: int
    """of the last group that is in it"""
    applied_at_ms: int
    """the time of that group"""
    taken_ms: int
    schema_version: int
    size_bytes: int
    """of the database's file"""
    sha256: bytes
    """of the database's file"""
    pieces: int


_decode_manifest = msgspec.msgpack.Decoder(Manifest).decode


def make_snapshot_id(sequence: int, random: bytes) -> bytes:
    """random: 8 bytes."""
    return sequence.to_bytes(8, "big") + random


def parse_key_version(data: bytes) -> int:
    """The version of the system key that a piece or a manifest is sealed under. Corrupt."""
    if len(data) < HEAD_BYTES:
        raise Corrupt("a piece of a snapshot is shorter than its head")
    magic, version, _, _, _, key_version = _HEAD.unpack_from(data)
    if magic not in (_PIECE_MAGIC, _MANIFEST_MAGIC) or version != FORMAT:
        raise Corrupt("not a snapshot of this format")
    return int(key_version)


class SnapshotSeal:
    """Seals and opens what belongs to one snapshot."""

    def __init__(self, system_key: bytes, key_version: int, cluster_id: bytes, snapshot_id: bytes) -> None:
        self._aead = AESGCM(derive_key(system_key, _LABEL, cluster_id + snapshot_id))
        self._key_version = key_version
        self._cluster_id = cluster_id
        self._snapshot_id = snapshot_id

    def seal_piece(self, number: int, content: bytes) -> bytes:
        """content: up to PIECE_BYTES of the database's file."""
        return self._seal(_PIECE_MAGIC, number, _piece_nonce(number), zlib.compress(content, _COMPRESSION))

    def open_piece(self, number: int, data: bytes) -> bytes:
        """The inverse. SealBroken; Corrupt."""
        packed = self._open(_PIECE_MAGIC, number, _piece_nonce(number), data)
        inflater = zlib.decompressobj()
        try:
            content = inflater.decompress(packed, _INFLATED_BYTES_MAX)
        except zlib.error as error:
            raise Corrupt(f"a piece of a snapshot: {error}") from error
        if not inflater.eof:
            raise Corrupt("a piece of a snapshot is not as long as it must be")
        return content

    def seal_manifest(self, manifest: Manifest) -> bytes:
        """A small file."""
        return self._seal(_MANIFEST_MAGIC, manifest.pieces, _MANIFEST_NONCE, msgspec.msgpack.encode(manifest))

    def open_manifest(self, data: bytes) -> Manifest:
        """The inverse. SealBroken; Corrupt."""
        if len(data) < HEAD_BYTES:
            raise Corrupt("a manifest is shorter than its head")
        pieces = int(_HEAD.unpack_from(data)[4])
        try:
            manifest = _decode_manifest(self._open(_MANIFEST_MAGIC, pieces, _MANIFEST_NONCE, data))
        except msgspec.DecodeError as error:
            raise Corrupt(f"a manifest: {error}") from error
        if manifest.pieces != pieces:
            raise Corrupt("a manifest contradicts its head")
        return manifest

    def _seal(self, magic: bytes, number: int, nonce: bytes, content: bytes) -> bytes:
        head = self._head(magic, number)
        return head + self._aead.encrypt(nonce, content, _LABEL + head)

    def _open(self, magic: bytes, number: int, nonce: bytes, data: bytes) -> bytes:
        head = bytes(data[:HEAD_BYTES])
        if head != self._head(magic, number):
            raise SealBroken("a part of a snapshot is another one than it was asked for")
        try:
            return self._aead.decrypt(nonce, bytes(data[HEAD_BYTES:]), _LABEL + head)
        except InvalidTag:
            raise SealBroken("a part of a snapshot does not open") from None

    def _head(self, magic: bytes, number: int) -> bytes:
        return _HEAD.pack(magic, FORMAT, self._cluster_id, self._snapshot_id, number, self._key_version)


def _piece_nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "big")
