"""Sealing with a customer's key: the known answers, and that nothing opens with one of the two keys alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import SealBroken
from storage.crypto.customer import (
    CustomerKey,
    make_customer_check,
    mix_customer_key,
    open_checksum,
    seal_checksum,
    verify_customer_check,
)
from storage.crypto.keys import BlobKey

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "customer-1.json").read_text())
CLUSTER_ID = bytes.fromhex(VECTORS["cluster_id"])
BLOB_ID = bytes.fromhex(VECTORS["blob_id"])
BUCKET_KEY = bytes.fromhex(VECTORS["bucket_key"])
CUSTOMER_KEY = CustomerKey(bytes.fromhex(VECTORS["customer_key"]))
SALT = bytes.fromhex(VECTORS["salt"])
NONCE = bytes.fromhex(VECTORS["nonce"])
DATA_KEY = bytes.fromhex(VECTORS["data_key"])

some_keys = st.binary(min_size=32, max_size=32)


def test_the_known_answers() -> None:
    """Mixed key, wrapped data key, check, sealed checksum and the MD5 that clients send."""
    mixed = mix_customer_key(BUCKET_KEY, CLUSTER_ID, CUSTOMER_KEY)
    assert mixed.hex() == VECTORS["mixed_key"]
    wrapped = BlobKey(mixed, CLUSTER_ID, BLOB_ID).wrap(VECTORS["chunk_index"], DATA_KEY)
    assert wrapped.hex() == VECTORS["wrapped_data_key"]
    assert make_customer_check(mixed, CLUSTER_ID, SALT).hex() == VECTORS["check"]
    algorithm, text = VECTORS["checksum"]["algorithm"], VECTORS["checksum"]["value"]
    assert seal_checksum(mixed, CLUSTER_ID, SALT, NONCE, algorithm, text) == VECTORS["sealed_checksum"]
    assert open_checksum(mixed, CLUSTER_ID, SALT, algorithm, VECTORS["sealed_checksum"]) == text
    assert CUSTOMER_KEY.md5_base64 == VECTORS["customer_key_md5"]


def test_a_key_is_told_nowhere() -> None:
    """Neither repr nor str nor a format of the key, or of what holds it, shows a byte of it."""
    for shown in (repr(CUSTOMER_KEY), str(CUSTOMER_KEY), f"{CUSTOMER_KEY} {(CUSTOMER_KEY,)!r}"):
        assert "\\x" not in shown
        assert CUSTOMER_KEY.secret.hex() not in shown
        assert "CustomerKey(…)" in shown


@given(bucket_key=some_keys, customer_key=some_keys, other=some_keys, index=st.integers(0, 2**32 - 1))
def test_only_both_keys_open(bucket_key: bytes, customer_key: bytes, other: bytes, index: int) -> None:
    """Neither the bucket key alone, nor another customer's key, nor another bucket's unwraps the data key."""
    mixed = mix_customer_key(bucket_key, CLUSTER_ID, CustomerKey(customer_key))
    wrapped = BlobKey(mixed, CLUSTER_ID, BLOB_ID).wrap(index, DATA_KEY)
    assert BlobKey(mixed, CLUSTER_ID, BLOB_ID).unwrap(index, wrapped) == DATA_KEY
    wrong = [bucket_key, customer_key]
    if other != customer_key:
        wrong.append(mix_customer_key(bucket_key, CLUSTER_ID, CustomerKey(other)))
    if other != bucket_key:
        wrong.append(mix_customer_key(other, CLUSTER_ID, CustomerKey(customer_key)))
    for secret in wrong:
        with pytest.raises(SealBroken):
            BlobKey(secret, CLUSTER_ID, BLOB_ID).unwrap(index, wrapped)


@given(key=some_keys, other=some_keys, salt=st.binary(min_size=16, max_size=16), at=st.integers(0, 47))
def test_the_check_knows_its_key(key: bytes, other: bytes, salt: bytes, at: int) -> None:
    """It fits its own key and nothing else, and no changed byte of it does."""
    check = make_customer_check(key, CLUSTER_ID, salt)
    assert verify_customer_check(check, key, CLUSTER_ID)
    assert verify_customer_check(check, other, CLUSTER_ID) is (other == key)
    assert not verify_customer_check(check[:at] + bytes([check[at] ^ 1]) + check[at + 1 :], key, CLUSTER_ID)
    assert not verify_customer_check(check[:at], key, CLUSTER_ID)


@given(text=st.text(st.characters(codec="ascii"), max_size=100), other=some_keys)
def test_a_sealed_checksum(text: str, other: bytes) -> None:
    """Opens with its key, its algorithm and its salt alone; its text does not show."""
    sealed = seal_checksum(BUCKET_KEY, CLUSTER_ID, SALT, NONCE, "SHA256", text)
    assert open_checksum(BUCKET_KEY, CLUSTER_ID, SALT, "SHA256", sealed) == text
    attempts = [(BUCKET_KEY, SALT, "SHA1"), (BUCKET_KEY, SALT[::-1], "SHA256")]
    if other != BUCKET_KEY:
        attempts.append((other, SALT, "SHA256"))
    for secret, salt, algorithm in attempts:
        with pytest.raises(SealBroken):
            open_checksum(secret, CLUSTER_ID, salt, algorithm, sealed)


@given(st.text(max_size=80))
def test_what_is_no_sealed_checksum(text: str) -> None:
    """Any text ends in SealBroken."""
    with pytest.raises(SealBroken):
        open_checksum(BUCKET_KEY, CLUSTER_ID, SALT, "CRC32", text)
