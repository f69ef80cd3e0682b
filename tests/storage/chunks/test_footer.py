"""The footer: what is written is read, and no damage passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import Corrupt
from storage.chunks.footer import FOOTER_BYTES, Footer, RunningDigest, digest_of, format_footer, parse_footer
from storage.chunks.store import ChunkReceipt

FOOTERS = st.builds(Footer, st.integers(0, 2**40), st.binary(min_size=8, max_size=8), st.integers(0, 2**63))


def _crc32(data: bytes) -> int:
    """CRC-32 of ISO-HDLC bit by bit, to hold the library's against the definition."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0xEDB88320 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@given(footer=FOOTERS)
def test_round_trip(footer: Footer) -> None:
    """Every footer of a file of its length."""
    raw = format_footer(footer)
    assert len(raw) == FOOTER_BYTES
    assert parse_footer(raw, footer.length + FOOTER_BYTES) == footer
    assert parse_footer(memoryview(bytearray(raw)), footer.length + FOOTER_BYTES) == footer
    assert footer.receipt == ChunkReceipt(footer.length, footer.digest)


def test_the_bytes_are_those_documented() -> None:
    """Field by field, so that a later version cannot change the format unseen."""
    raw = format_footer(Footer(0x0102, b"digest!!", 0x0304))
    assert raw[:4] == b"FBF1"
    assert raw[4:12] == bytes(6) + b"\x01\x02"
    assert raw[12:20] == b"digest!!"
    assert raw[20:28] == bytes(6) + b"\x03\x04"
    assert raw[28:] == _crc32(raw[:28]).to_bytes(4, "big")


@given(footer=FOOTERS, bit=st.integers(0, FOOTER_BYTES * 8 - 1))
def test_one_wrong_bit_is_noticed(footer: Footer, bit: int) -> None:
    """Wherever it is."""
    raw = bytearray(format_footer(footer))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        parse_footer(raw, footer.length + FOOTER_BYTES)


@given(footer=FOOTERS, size=st.integers(0, 2**41))
def test_a_file_of_another_size_is_noticed(footer: Footer, size: int) -> None:
    """A file cut short or grown does not pass with its old footer."""
    if size != footer.length + FOOTER_BYTES:
        with pytest.raises(Corrupt):
            parse_footer(format_footer(footer), size)


@given(raw=st.binary(max_size=64), size=st.integers(0, 100))
def test_anything_else_is_corrupt(raw: bytes, size: int) -> None:
    """No bytes make the parser fail otherwise."""
    with pytest.raises(Corrupt):
        parse_footer(raw, size)


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_a_digest_in_pieces_is_the_digest(data: bytes, cut: int) -> None:
    """However the bytes come."""
    running = RunningDigest()
    for piece in (data[:cut], memoryview(data)[cut:], bytearray()):
        running.update(piece)
    assert running.receipt() == digest_of(data)


def test_the_digest_is_crc64_nvme() -> None:
    """The check value of the catalogue of CRC algorithms (CRC-64/NVME)."""
    assert digest_of(b"123456789") == ChunkReceipt(9, bytes.fromhex("ae8b14860a799888"))
