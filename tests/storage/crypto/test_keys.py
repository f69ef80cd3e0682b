"""Derivations, wraps, MACs and sealed secrets: known bytes and what each is bound to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.errors import SealBroken
from storage.crypto.keys import (
    SEALED_SECRET_OVERHEAD_BYTES,
    SECRET_BYTES_MAX,
    WRAPPED_KEY_BYTES,
    BlobKey,
    BucketSecret,
    derive_key,
    make_version_mac,
    master_key_id,
    open_secret,
    parse_secret_key_version,
    seal_secret,
    unwrap_bucket_key,
    unwrap_first_key,
    verify_version_mac,
    wrap_bucket_key,
    wrap_first_key,
)
from storage.model import Extent

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "keys-1.json").read_text())
CLUSTER_ID = b"cluster-id-16byt"
BLOB_ID = b"session-" + b"00000007"
BUCKET_KEY = bytes(range(32))
DATA_KEY = bytes(range(32, 64))
NONCE = b"twelve bytes"

keys = st.binary(min_size=32, max_size=32)


def raw(name: str) -> bytes:
    """A vector's field as bytes."""
    return bytes.fromhex(VECTORS[name])


def test_known_answers_of_the_key_hierarchy() -> None:
    """Every derivation and wrap gives the bytes that it always gave."""
    blob_key = BlobKey(raw("bucket_key"), raw("cluster_id"), raw("blob_id"))
    assert blob_key.wrap(VECTORS["chunk_index"], raw("data_key")) == raw("wrapped_data_key")
    assert master_key_id(raw("master_key")) == VECTORS["master_key_id"]
    place = (raw("cluster_id"), VECTORS["bucket_key_id"], VECTORS["bucket_key_version"])
    assert wrap_bucket_key(raw("master_key"), raw("nonce"), *place, raw("bucket_key")) == raw("wrapped_bucket_key")
    assert unwrap_bucket_key(raw("master_key"), *place, raw("wrapped_bucket_key")) == raw("bucket_key")
    secret, purpose = VECTORS["secret"].encode(), VECTORS["purpose"]
    sealed = seal_secret(raw("system_key"), 1, raw("nonce"), raw("cluster_id"), purpose, secret)
    assert sealed == raw("sealed_secret")
    assert open_secret(raw("system_key"), raw("cluster_id"), purpose, sealed) == secret


def test_known_answer_of_the_version_mac() -> None:
    """uid, size and the blobs in order."""
    version = VECTORS["version"]
    extents = [Extent(bytes.fromhex(blob_id), offset, length) for blob_id, offset, length in version["extents"]]
    arguments = (raw("bucket_key"), raw("cluster_id"), bytes.fromhex(version["uid"]), version["size"], extents)
    assert make_version_mac(*arguments).hex() == version["mac"]
    verify_version_mac(bytes.fromhex(version["mac"]), *arguments)


@given(keys, keys)
def test_a_bucket_secret_is_its_bytes(bucket_key: bytes, cluster_id: bytes) -> None:
    """Whatever is derived from it, for one cluster and another; and it is not shown."""
    secret = BucketSecret(bucket_key)
    for cluster in (cluster_id, CLUSTER_ID, cluster_id):
        arguments = (cluster, b"uid-uid-", 150, EXTENTS)
        assert make_version_mac(secret, *arguments) == make_version_mac(bucket_key, *arguments)
        assert derive_key(secret, b"label", cluster) == derive_key(bucket_key, b"label", cluster)
    assert repr(secret) == "BucketSecret()"


@given(keys, keys, st.integers(0, 2**32 - 1))
def test_a_wrapped_data_key_comes_back(bucket_key: bytes, data_key: bytes, chunk_index: int) -> None:
    """48 bytes, opened by anyone with the bucket key and the ids."""
    wrapped = BlobKey(bucket_key, CLUSTER_ID, BLOB_ID).wrap(chunk_index, data_key)
    assert len(wrapped) == WRAPPED_KEY_BYTES
    assert data_key not in wrapped
    assert BlobKey(bucket_key, CLUSTER_ID, BLOB_ID).unwrap(chunk_index, wrapped) == data_key


@given(keys, keys)
def test_the_first_key_of_a_blob_is_wrapped_as_any(bucket_key: bytes, data_key: bytes) -> None:
    """The same 48 bytes, whatever the bucket key is held in."""
    wrapped = BlobKey(bucket_key, CLUSTER_ID, BLOB_ID).wrap(0, data_key)
    for secret in (bucket_key, BucketSecret(bucket_key)):
        assert wrap_first_key(secret, CLUSTER_ID, BLOB_ID, data_key) == wrapped
        assert unwrap_first_key(secret, CLUSTER_ID, BLOB_ID, wrapped) == data_key
    for place in ((CLUSTER_ID[::-1] + b"?")[:16], BLOB_ID), (CLUSTER_ID, BLOB_ID[1:] + b"?"):
        with pytest.raises(SealBroken):
            unwrap_first_key(bucket_key, *place, wrapped)
    for strange in (wrapped[:-1], BlobKey(bucket_key, CLUSTER_ID, BLOB_ID).wrap(1, data_key)):
        with pytest.raises(SealBroken):
            unwrap_first_key(bucket_key, CLUSTER_ID, BLOB_ID, strange)


def test_a_wrapped_data_key_opens_only_where_it_belongs() -> None:
    """Bucket key, cluster, blob and chunk index are all bound, and so is every bit."""
    wrapped = BlobKey(BUCKET_KEY, CLUSTER_ID, BLOB_ID).wrap(4, DATA_KEY)
    strangers = [
        (BlobKey(DATA_KEY, CLUSTER_ID, BLOB_ID), 4),
        (BlobKey(BUCKET_KEY, b"cluster-id-16byX", BLOB_ID), 4),
        (BlobKey(BUCKET_KEY, CLUSTER_ID, BLOB_ID[:-1] + b"8"), 4),
        (BlobKey(BUCKET_KEY, CLUSTER_ID, BLOB_ID), 5),
    ]
    for blob_key, chunk_index in strangers:
        with pytest.raises(SealBroken):
            blob_key.unwrap(chunk_index, wrapped)
    for at in range(len(wrapped)):
        with pytest.raises(SealBroken):
            BlobKey(BUCKET_KEY, CLUSTER_ID, BLOB_ID).unwrap(
                4, wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
            )
    for damaged in (b"", wrapped[:-1], wrapped + b"\0"):
        with pytest.raises(SealBroken):
            BlobKey(BUCKET_KEY, CLUSTER_ID, BLOB_ID).unwrap(4, damaged)


EXTENTS = (Extent(BLOB_ID, 0, 100, 1), Extent(BLOB_ID[:-1] + b"8", 0, 50, 2))

OTHER_VERSIONS = {
    "bucket key": (DATA_KEY, CLUSTER_ID, b"uid-uid-", 150, EXTENTS),
    "cluster": (BUCKET_KEY, b"cluster-id-16byX", b"uid-uid-", 150, EXTENTS),
    "uid": (BUCKET_KEY, CLUSTER_ID, b"uid-uid=", 150, EXTENTS),
    "size": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 151, EXTENTS),
    "order": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, EXTENTS[::-1]),
    "a blob fewer": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, EXTENTS[:1]),
    "a blob more": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, (*EXTENTS, EXTENTS[0])),
    "another blob": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, (EXTENTS[0], Extent(BLOB_ID, 0, 50, 2))),
    "offset": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, (EXTENTS[0], Extent(EXTENTS[1].blob_id, 1, 50, 2))),
    "length": (BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, (EXTENTS[0], Extent(EXTENTS[1].blob_id, 0, 49, 2))),
}


@pytest.mark.parametrize("other", OTHER_VERSIONS.values(), ids=OTHER_VERSIONS.keys())
def test_a_version_mac_is_of_one_version(other: tuple[bytes, bytes, bytes, int, tuple[Extent, ...]]) -> None:
    """Nothing of what it covers can be changed."""
    mac = make_version_mac(BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, EXTENTS)
    with pytest.raises(SealBroken):
        verify_version_mac(mac, *other)
    with pytest.raises(SealBroken):
        verify_version_mac(mac[:-1], BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 150, EXTENTS)


def test_a_version_without_blobs_has_a_mac() -> None:
    """A zero-byte object."""
    mac = make_version_mac(BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 0, ())
    verify_version_mac(mac, BUCKET_KEY, CLUSTER_ID, b"uid-uid-", 0, [])
    assert len(mac) == 32


def test_a_bucket_key_is_bound_to_its_id_version_and_cluster() -> None:
    """A keyring file renamed to another, or an old version's wrap put in place of a new one, does not open."""
    wrapped = wrap_bucket_key(DATA_KEY, NONCE, CLUSTER_ID, "bk-1", 1, BUCKET_KEY)
    assert unwrap_bucket_key(DATA_KEY, CLUSTER_ID, "bk-1", 1, wrapped) == BUCKET_KEY
    others = [
        (BUCKET_KEY, CLUSTER_ID, "bk-1", 1),
        (DATA_KEY, b"cluster-id-16byX", "bk-1", 1),
        (DATA_KEY, CLUSTER_ID, "bk-2", 1),
        (DATA_KEY, CLUSTER_ID, "bk-1", 2),
    ]
    for other in others:
        with pytest.raises(SealBroken):
            unwrap_bucket_key(*other, wrapped)
    for damaged in (b"", wrapped[:5], wrapped[:-1], wrapped + b"\0"):
        with pytest.raises(SealBroken):
            unwrap_bucket_key(DATA_KEY, CLUSTER_ID, "bk-1", 1, damaged)


@given(
    st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.integers(1, 2**32 - 1)
)
def test_a_sealed_secret_comes_back(secret: bytes, purpose: str, version: int) -> None:
    """And says by which version of the system key."""
    sealed = seal_secret(BUCKET_KEY, version, NONCE, CLUSTER_ID, purpose, secret)
    assert len(sealed) == len(secret) + SEALED_SECRET_OVERHEAD_BYTES
    assert parse_secret_key_version(sealed) == version
    assert open_secret(BUCKET_KEY, CLUSTER_ID, purpose, sealed) == secret


def test_a_sealed_secret_is_bound_to_its_purpose_cluster_and_key_version() -> None:
    """Moved to another access key's row it does not open."""
    sealed = seal_secret(BUCKET_KEY, 1, NONCE, CLUSTER_ID, "sigv4 A", b"secret")
    for other in [
        (DATA_KEY, CLUSTER_ID, "sigv4 A"),
        (BUCKET_KEY, b"x" * 16, "sigv4 A"),
        (BUCKET_KEY, CLUSTER_ID, "sigv4 B"),
    ]:
        with pytest.raises(SealBroken):
            open_secret(*other, sealed)
    renumbered = sealed[:4] + b"\x02" + sealed[5:]
    with pytest.raises(SealBroken):
        open_secret(BUCKET_KEY, CLUSTER_ID, "sigv4 A", renumbered)


@given(st.binary(max_size=100))
def test_hostile_secrets_do_not_open(sealed: bytes) -> None:
    """Any bytes in the row: SealBroken, nothing else."""
    with pytest.raises(SealBroken):
        open_secret(BUCKET_KEY, CLUSTER_ID, "sigv4 A", sealed)


def test_secrets_have_a_bound() -> None:
    """They are small by definition."""
    seal_secret(BUCKET_KEY, 1, NONCE, CLUSTER_ID, "", bytes(SECRET_BYTES_MAX))
    with pytest.raises(ValueError, match="at most"):
        seal_secret(BUCKET_KEY, 1, NONCE, CLUSTER_ID, "", bytes(SECRET_BYTES_MAX + 1))


@given(keys, keys)
def test_master_key_fingerprints_tell_keys_apart(one: bytes, other: bytes) -> None:
    """Equal exactly for equal keys, and never part of the key."""
    assert (master_key_id(one) == master_key_id(other)) == (one == other)
    assert master_key_id(one)[3:] not in one.hex()
