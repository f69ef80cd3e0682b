"""Computes the known answers of this directory from bare primitives and the text of ARCHITECTURE.md, without Frostbyte.

`python -m tests.vectors.compute` prints every file's content; the files are the contract, and a change to one of them
is a new format with a new version, never a correction.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CLUSTER_ID = bytes.fromhex("c1" * 16)
BLOB_ID = bytes.fromhex("5e5510000000000b" + "0000000000000007")
CHUNK_INDEX = 3
DATA_KEY = bytes(range(32))
BUCKET_KEY = bytes(range(32, 64))
MASTER_KEY = bytes(range(64, 96))
SYSTEM_KEY = bytes(range(96, 128))
NONCE = bytes(range(200, 212))
CUSTOMER_KEY = bytes(range(128, 160))
SALT = bytes(range(160, 176))


def expand(secret: bytes, info: bytes) -> bytes:
    """HKDF-Expand-SHA256 to 32 bytes: one block (RFC 5869, section 2.3)."""
    return hmac.new(secret, info + b"\x01", hashlib.sha256).digest()


def plaintext(length: int) -> bytes:
    """Bytes that name their place: SHA-256 of a counter, joined."""
    blocks = (length + 31) // 32
    return b"".join(hashlib.sha256(n.to_bytes(4, "big")).digest() for n in range(blocks))[:length]


def sealed_chunk(length: int) -> bytes:
    """A whole chunk of format 1."""
    header = b"FBC1" + bytes([1, 16, 0, 0]) + CLUSTER_ID + BLOB_ID + CHUNK_INDEX.to_bytes(4, "big") + bytes(20)
    whole, plain = [header], plaintext(length)
    count = (length + 65535) // 65536
    for index in range(count):
        place = index.to_bytes(4, "big") + bytes([index == count - 1])
        bound = CLUSTER_ID + bytes([1, 16]) + BLOB_ID + CHUNK_INDEX.to_bytes(4, "big") + place + bytes(3)
        assert len(bound) == 46
        frame = plain[index * 65536 : (index + 1) * 65536]
        whole.append(AESGCM(DATA_KEY).encrypt(bytes(7) + place, frame, bound))
    return b"".join(whole)


def chunk_vectors() -> dict[str, Any]:
    """Three chunks: short, one full frame, and three frames with a last one of one byte."""
    chunks = []
    for length in (11, 65536, 131073):
        sealed = sealed_chunk(length)
        chunks.append(
            {
                "plain_length": length,
                "sealed_length": len(sealed),
                "sealed_sha256": hashlib.sha256(sealed).hexdigest(),
                "first_96_bytes": sealed[:96].hex(),
                "last_17_bytes": sealed[-17:].hex(),
            }
        )
    return {
        "cluster_id": CLUSTER_ID.hex(),
        "blob_id": BLOB_ID.hex(),
        "chunk_index": CHUNK_INDEX,
        "data_key": DATA_KEY.hex(),
        "plaintext": "SHA-256 of u32 big-endian 0, 1, 2 …, joined and cut",
        "chunks": chunks,
    }


def key_vectors() -> dict[str, Any]:
    """One of each derivation, wrap and MAC."""
    wrapping_key = expand(BUCKET_KEY, b"frostbyte blob wrap 1" + CLUSTER_ID + BLOB_ID)
    index = CHUNK_INDEX.to_bytes(4, "big")
    data_key_place = b"frostbyte data key 1" + CLUSTER_ID + BLOB_ID + index
    uid, size = bytes.fromhex("0102030405060708"), 5_000_000
    listed = BLOB_ID + (0).to_bytes(8, "big") + (4_000_000).to_bytes(8, "big")
    listed += BLOB_ID[:-1] + b"\x08" + (0).to_bytes(8, "big") + (1_000_000).to_bytes(8, "big")
    mac_key = expand(BUCKET_KEY, b"frostbyte version mac 1" + CLUSTER_ID)
    key_id = "bk-000102030405060708090a0b0c0d0e0f"
    keyring_key = expand(MASTER_KEY, b"frostbyte keyring wrap 1" + CLUSTER_ID)
    keyring_place = b"frostbyte keyring wrap 1" + CLUSTER_ID + (2).to_bytes(4, "big") + key_id.encode()
    head, purpose, secret = b"\x01" + (1).to_bytes(4, "big"), "sigv4 AKIAEXAMPLE", b"wJalrXUtnFEMI/K7MDENG"
    secret_key = expand(SYSTEM_KEY, b"frostbyte secret 1" + CLUSTER_ID)
    secret_place = b"frostbyte secret 1" + head + CLUSTER_ID + purpose.encode()
    return {
        "cluster_id": CLUSTER_ID.hex(),
        "blob_id": BLOB_ID.hex(),
        "chunk_index": CHUNK_INDEX,
        "data_key": DATA_KEY.hex(),
        "bucket_key": BUCKET_KEY.hex(),
        "master_key": MASTER_KEY.hex(),
        "system_key": SYSTEM_KEY.hex(),
        "nonce": NONCE.hex(),
        "wrapped_data_key": AESGCM(wrapping_key).encrypt(bytes(8) + index, DATA_KEY, data_key_place).hex(),
        "version": {
            "uid": uid.hex(),
            "size": size,
            "extents": [[BLOB_ID.hex(), 0, 4_000_000], [(BLOB_ID[:-1] + b"\x08").hex(), 0, 1_000_000]],
            "mac": hmac.new(mac_key, uid + size.to_bytes(8, "big") + listed, hashlib.sha256).hexdigest(),
        },
        "master_key_id": "mk-" + expand(MASTER_KEY, b"frostbyte master key id 1")[:8].hex(),
        "bucket_key_id": key_id,
        "bucket_key_version": 2,
        "wrapped_bucket_key": (NONCE + AESGCM(keyring_key).encrypt(NONCE, BUCKET_KEY, keyring_place)).hex(),
        "purpose": purpose,
        "secret": secret.decode(),
        "sealed_secret": (head + NONCE + AESGCM(secret_key).encrypt(NONCE, secret, secret_place)).hex(),
    }


def customer_vectors() -> dict[str, Any]:
    """What is derived from a customer's key together with a bucket key, and what is sealed with it."""
    mixed = hmac.new(BUCKET_KEY, b"frostbyte customer key 1" + CLUSTER_ID + CUSTOMER_KEY, hashlib.sha256).digest()
    wrapping_key = expand(mixed, b"frostbyte blob wrap 1" + CLUSTER_ID + BLOB_ID)
    index = CHUNK_INDEX.to_bytes(4, "big")
    data_key_place = b"frostbyte data key 1" + CLUSTER_ID + BLOB_ID + index
    checksum_key = expand(mixed, b"frostbyte customer checksum 1" + CLUSTER_ID + SALT)
    sealed = AESGCM(checksum_key).encrypt(NONCE, b"AAAAAA==", b"frostbyte customer checksum 1" + CLUSTER_ID + b"CRC32")
    return {
        "cluster_id": CLUSTER_ID.hex(),
        "blob_id": BLOB_ID.hex(),
        "chunk_index": CHUNK_INDEX,
        "data_key": DATA_KEY.hex(),
        "bucket_key": BUCKET_KEY.hex(),
        "customer_key": CUSTOMER_KEY.hex(),
        "customer_key_md5": base64.b64encode(hashlib.md5(CUSTOMER_KEY).digest()).decode(),
        "mixed_key": mixed.hex(),
        "wrapped_data_key": AESGCM(wrapping_key).encrypt(bytes(8) + index, DATA_KEY, data_key_place).hex(),
        "salt": SALT.hex(),
        "check": (SALT + expand(mixed, b"frostbyte customer check 1" + CLUSTER_ID + SALT)).hex(),
        "nonce": NONCE.hex(),
        "checksum": {"algorithm": "CRC32", "value": "AAAAAA=="},
        "sealed_checksum": base64.b64encode(NONCE + sealed).decode(),
    }


def journal_vectors() -> dict[str, Any]:
    """A segment of two records, and a snapshot of two pieces with its manifest."""
    label, segment_id = b"frostbyte journal 1", (9).to_bytes(8, "big") + bytes(range(8))
    described = b"FBJ1" + bytes([1, 0, 0, 0]) + CLUSTER_ID + segment_id
    described += b"".join(n.to_bytes(8, "big") for n in (0x1122334455667788, 41, 1_700_000_000_000))
    described += b"".join(n.to_bytes(4, "big") for n in (3, 2, 5)) + bytes(20)
    aead = AESGCM(expand(SYSTEM_KEY, label + CLUSTER_ID + segment_id))
    segment = described + aead.encrypt(b"\xff" * 4 + bytes(8), b"", label + described)
    payloads = [plaintext(30), plaintext(1000)]
    for sequence, payload in enumerate(payloads, 41):
        number = sequence.to_bytes(8, "big")
        sealed = aead.encrypt(bytes(4) + number, payload, label + CLUSTER_ID + b"\x01" + segment_id + number)
        record = len(sealed).to_bytes(4, "big") + number + sealed
        segment += record + zlib.crc32(record).to_bytes(4, "big")
    return {
        "cluster_id": CLUSTER_ID.hex(),
        "system_key": SYSTEM_KEY.hex(),
        "segment_id": segment_id.hex(),
        "history": 0x1122334455667788,
        "first_sequence": 41,
        "opened_ms": 1_700_000_000_000,
        "schema_version": 3,
        "key_version": 2,
        "copies": 5,
        "payloads": [payload.hex() for payload in payloads],
        "segment": segment.hex(),
        "snapshot": _snapshot_vectors(),
    }


def _snapshot_vectors() -> dict[str, Any]:
    """zlib's output may differ between its versions, so a piece is given, to be opened."""
    label, snapshot_id = b"frostbyte snapshot 1", (77).to_bytes(8, "big") + bytes(range(8, 16))
    aead = AESGCM(expand(SYSTEM_KEY, label + CLUSTER_ID + snapshot_id))

    def head(magic: bytes, number: int) -> bytes:
        return (
            magic
            + bytes([1, 0, 0, 0])
            + CLUSTER_ID
            + snapshot_id
            + number.to_bytes(4, "big")
            + bytes([0, 0, 0, 2])
            + bytes(16)
        )

    content = plaintext(500)
    described = {
        "history": 5,
        "sequence": 77,
        "applied_at_ms": 1_700_000_000_001,
        "taken_ms": 1_700_000_000_002,
        "schema_version": 3,
        "size_bytes": 500,
        "sha256": hashlib.sha256(content).digest(),
        "pieces": 1,
    }
    piece = head(b"FBS1", 0) + aead.encrypt(bytes(12), zlib.compress(content, 1), label + head(b"FBS1", 0))
    packed = msgspec.msgpack.encode(described)
    manifest = head(b"FBM1", 1) + aead.encrypt(b"\xff" * 4 + bytes(8), packed, label + head(b"FBM1", 1))
    return {
        "snapshot_id": snapshot_id.hex(),
        "content": content.hex(),
        "piece": piece.hex(),
        "manifest": manifest.hex(),
        **{name: value.hex() if isinstance(value, bytes) else value for name, value in described.items()},
    }


FILES = {
    "chunk-1.json": chunk_vectors,
    "customer-1.json": customer_vectors,
    "journal-1.json": journal_vectors,
    "keys-1.json": key_vectors,
}

if __name__ == "__main__":
    for name, compute in FILES.items():
        print(f"==> {name}\n{json.dumps(compute(), indent=1)}")
