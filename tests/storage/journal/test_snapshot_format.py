"""Snapshots by known answers, and by damage: a piece is what was put in or refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import Corrupt
from storage.crypto.keys import derive_key
from storage.journal.snapshot_format import (
    HEAD_BYTES,
    PIECE_BYTES,
    Manifest,
    SnapshotSeal,
    make_snapshot_id,
    parse_key_version,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "journal-1.json").read_text())
CLUSTER_ID = bytes.fromhex(VECTORS["cluster_id"])
SYSTEM_KEY = bytes.fromhex(VECTORS["system_key"])
SNAPSHOT_ID = make_snapshot_id(5, b"randomly")
MANIFEST = Manifest(1, 5, 1_000, 1_001, 3, 10, bytes(32), 1)


def seal(snapshot_id: bytes = SNAPSHOT_ID, key: bytes = SYSTEM_KEY) -> SnapshotSeal:
    return SnapshotSeal(key, 1, CLUSTER_ID, snapshot_id)


def test_known_answers() -> None:
    """Computed by tests/vectors/compute.py from bare primitives."""
    known = VECTORS["snapshot"]
    given_seal = SnapshotSeal(SYSTEM_KEY, 2, CLUSTER_ID, bytes.fromhex(known["snapshot_id"]))
    piece, manifest = bytes.fromhex(known["piece"]), bytes.fromhex(known["manifest"])
    assert parse_key_version(piece) == parse_key_version(manifest) == 2
    assert given_seal.open_piece(0, piece) == bytes.fromhex(known["content"])
    expected = Manifest(
        *(bytes.fromhex(known[name]) if name == "sha256" else known[name] for name in Manifest.__struct_fields__)
    )
    assert given_seal.open_manifest(manifest) == expected
    assert given_seal.seal_manifest(expected) == manifest


@given(content=st.binary(max_size=5_000), number=st.integers(0, 999_999))
def test_a_piece_comes_back(content: bytes, number: int) -> None:
    """And opens nowhere else."""
    data = seal().seal_piece(number, content)
    assert seal().open_piece(number, data) == content
    for other in (seal(make_snapshot_id(6, b"randomly")), seal(key=bytes(32))):
        with pytest.raises(Corrupt):
            other.open_piece(number, data)
    with pytest.raises(Corrupt):
        seal().open_piece(number + 1, data)
    with pytest.raises(Corrupt):
        seal().open_manifest(data)


@given(data=st.data(), content=st.binary(max_size=200))
def test_a_changed_piece_or_manifest_is_refused(data: st.DataObject, content: bytes) -> None:
    """Any bit, any cut."""
    for whole, opened in (
        (seal().seal_piece(3, content), lambda it: seal().open_piece(3, it)),
        (seal().seal_manifest(MANIFEST), lambda it: seal().open_manifest(it)),
    ):
        at = data.draw(st.integers(0, len(whole) - 1))
        flipped = bytearray(whole)
        flipped[at] ^= 1 << data.draw(st.integers(0, 7))
        for broken in (bytes(flipped), whole[:at]):
            with pytest.raises(Corrupt):
                opened(broken)


def test_a_piece_is_not_inflated_beyond_its_bound() -> None:
    """Whoever had the key could write one that fills the memory."""
    aead = AESGCM(derive_key(SYSTEM_KEY, b"frostbyte snapshot 1", CLUSTER_ID + SNAPSHOT_ID))
    head = seal().seal_piece(0, b"")[:HEAD_BYTES]
    bomb = head + aead.encrypt(bytes(12), zlib.compress(bytes(PIECE_BYTES + 1)), b"frostbyte snapshot 1" + head)
    with pytest.raises(Corrupt, match="not as long"):
        seal().open_piece(0, bomb)


@given(data=st.binary(max_size=100))
def test_any_bytes_are_no_snapshot(data: bytes) -> None:
    for parse in (parse_key_version, seal().open_manifest, lambda it: seal().open_piece(0, it)):
        with pytest.raises(Corrupt):
            parse(data)
