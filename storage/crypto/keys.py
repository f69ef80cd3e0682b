"""PURE. Every key that is derived from another, and everything small that is sealed with one. Bytes: ARCHITECTURE.md.

    master key ─ derives ─ keyring wrap ─ wraps ─ bucket key ┬ derives ─ wrapping key of a blob ─ wraps ─ data key
                                                             └ derives ─ version MAC key
    `system` key (kept like a bucket key) ─ derives ─ secret key ─ seals ─ SigV4 secrets

Derivation is HKDF-Expand-SHA256 (RFC 5869, section 2.3): the inputs are uniform keys, so there is nothing to extract.
Each purpose has a label of its own that ends in a format number, and no label begins another.
Where nonces are random (keyring and secrets: a few, made over years) the caller brings them; where they are counters
(data keys) the key is used for one blob only. Opening anything that was changed or belongs elsewhere is SealBroken.
"""

from __future__ import annotations

import hmac
import re
import struct
from collections.abc import Iterable
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.base.errors import SealBroken
from storage.crypto.prepared_mac import PreparedKey, PreparedMac
from storage.model import Extent

KEY_BYTES = 32
NONCE_BYTES = 12
WRAPPED_KEY_BYTES = KEY_BYTES + 16
SEALED_SECRET_OVERHEAD_BYTES = 1 + 4 + NONCE_BYTES + 16
SECRET_BYTES_MAX = 4_096
MASTER_KEY_ID_PREFIX = "mk-"

_BLOB_WRAP = b"frostbyte blob wrap 1"
_DATA_KEY = b"frostbyte data key 1"
_VERSION_MAC = b"frostbyte version mac 1"
_KEYRING_WRAP = b"frostbyte keyring wrap 1"
_MASTER_KEY_ID = b"frostbyte master key id 1"
_SECRET = b"frostbyte secret 1"
_SECRET_FORMAT = 1

NAMED_PREFIX = "named-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

_DATA_KEY_NONCE = struct.Struct(">8xI")
_FIRST_NONCE = _DATA_KEY_NONCE.pack(0)
_FIRST = _FIRST_NONCE[8:]
_EXTENT = struct.Struct(">16sQQ")
_SECRET_HEAD = struct.Struct(">BI")


class BucketSecret(PreparedKey):
    """A bucket key, which much is derived from."""

    @cached_property
    def version_macs(self) -> dict[bytes, PreparedMac]:
        """Of versions, by the cluster's id."""
        return {}


def derive_key(secret: bytes, label: bytes, context: bytes = b"") -> bytes:
    """32 bytes for one purpose; see above. As long as one block of the hash, which is all of the expansion then."""
    message = label + context + b"\x01"
    return secret.mac.digest(message) if type(secret) is BucketSecret else hmac.digest(secret, message, "sha256")


class BlobKey:
    """The wrapping key of one blob: wraps and unwraps the data keys of its chunks. Make one per blob and operation."""

    def __init__(self, bucket_key: bytes, cluster_id: bytes, blob_id: bytes) -> None:
        place = cluster_id + blob_id
        self._aead = AESGCM(derive_key(bucket_key, _BLOB_WRAP, place))
        self._bound = _DATA_KEY + place

    def wrap(self, chunk_index: int, data_key: bytes) -> bytes:
        """48 bytes. The nonce is the chunk index: a chunk gets one data key, ever."""
        nonce = _DATA_KEY_NONCE.pack(chunk_index)
        return self._aead.encrypt(nonce, data_key, self._bound + nonce[8:])

    def unwrap(self, chunk_index: int, wrapped_key: bytes) -> bytes:
        """The 32 bytes of the data key. SealBroken."""
        nonce = _DATA_KEY_NONCE.pack(chunk_index)
        try:
            return self._aead.decrypt(nonce, wrapped_key, self._bound + nonce[8:])
        except InvalidTag:
            raise SealBroken("a wrapped data key does not open", chunk_index=str(chunk_index)) from None


def wrap_first_key(bucket_key: bytes, cluster_id: bytes, blob_id: bytes, data_key: bytes) -> bytes:
    """As BlobKey.wrap of the first chunk: 48 bytes. For a blob that has no other chunk."""
    place = cluster_id + blob_id
    return AESGCM(derive_key(bucket_key, _BLOB_WRAP, place)).encrypt(_FIRST_NONCE, data_key, _DATA_KEY + place + _FIRST)


def unwrap_first_key(bucket_key: bytes, cluster_id: bytes, blob_id: bytes, wrapped_key: bytes) -> bytes:
    """As BlobKey.unwrap of the first chunk. SealBroken."""
    place = cluster_id + blob_id
    aead = AESGCM(derive_key(bucket_key, _BLOB_WRAP, place))
    try:
        return aead.decrypt(_FIRST_NONCE, wrapped_key, _DATA_KEY + place + _FIRST)
    except InvalidTag:
        raise SealBroken("a wrapped data key does not open", chunk_index="0") from None


def make_version_mac(bucket_key: bytes, cluster_id: bytes, uid: bytes, size: int, extents: Iterable[Extent]) -> bytes:
    """32 bytes over what a version is: its uid, its size and its blobs in order.

    It proves that nobody without the bucket key put other blobs (or fewer) under the version. Part numbers are not in
    it: they say how a client cut its upload, and moving such a cut moves no byte.
    """
    listed = b"".join([_EXTENT.pack(extent.blob_id, extent.offset, extent.length) for extent in extents])
    message = uid + size.to_bytes(8, "big") + listed
    return _version_mac(bucket_key, cluster_id).digest(message)


def _version_mac(bucket_key: bytes, cluster_id: bytes) -> PreparedMac:
    kept = bucket_key.version_macs if type(bucket_key) is BucketSecret else {}
    mac = kept.get(cluster_id)
    if mac is None:
        mac = kept[cluster_id] = PreparedMac(derive_key(bucket_key, _VERSION_MAC, cluster_id))
    return mac


def verify_version_mac(
    mac: bytes, bucket_key: bytes, cluster_id: bytes, uid: bytes, size: int, extents: Iterable[Extent]
) -> None:
    """SealBroken unless the MAC is of exactly this version; compared in constant time."""
    if not hmac.compare_digest(mac, make_version_mac(bucket_key, cluster_id, uid, size, extents)):
        raise SealBroken("a version's record does not match its MAC", uid=uid.hex())


def master_key_id(master_key: bytes) -> str:
    """What wraps name their master key by: `mk-` and 16 hex digits, a fingerprint from which nothing can be learnt."""
    return MASTER_KEY_ID_PREFIX + derive_key(master_key, _MASTER_KEY_ID)[:8].hex()


def wrap_bucket_key(
    master_key: bytes, nonce: bytes, cluster_id: bytes, bucket_key_id: str, version: int, bucket_key: bytes
) -> bytes:
    """nonce (12 random bytes) ++ the bucket key sealed under the master key: 60 bytes, bound to its id and version."""
    aead = AESGCM(derive_key(master_key, _KEYRING_WRAP, cluster_id))
    return nonce + aead.encrypt(nonce, bucket_key, _bucket_key_place(cluster_id, bucket_key_id, version))


def unwrap_bucket_key(
    master_key: bytes, cluster_id: bytes, bucket_key_id: str, version: int, wrapped_key: bytes
) -> bytes:
    """The 32 bytes of the bucket key. SealBroken."""
    aead = AESGCM(derive_key(master_key, _KEYRING_WRAP, cluster_id))
    place = _bucket_key_place(cluster_id, bucket_key_id, version)
    try:
        return aead.decrypt(wrapped_key[:NONCE_BYTES], wrapped_key[NONCE_BYTES:], place)
    except (InvalidTag, ValueError):  # ValueError: a nonce that was cut short
        raise SealBroken(f"key {bucket_key_id} version {version} does not open") from None


def _bucket_key_place(cluster_id: bytes, bucket_key_id: str, version: int) -> bytes:
    return _KEYRING_WRAP + cluster_id + version.to_bytes(4, "big") + bucket_key_id.encode()


def named_key_id(name: str) -> str:
    """The id of a named key. ValueError unless the name is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or
    digit: it becomes part of a file's name, so there is no slash."""
    if not _NAME.match(name):
        raise ValueError("a key's name has 1 to 64 letters, digits and any of . _ - with a letter or digit first")
    return NAMED_PREFIX + name


def seal_secret(
    system_key: bytes, key_version: int, nonce: bytes, cluster_id: bytes, purpose: str, secret: bytes
) -> bytes:
    """A small secret at rest: format (1) ++ system key version (u32) ++ nonce ++ ciphertext ++ tag.

    purpose says what it is and whose (`sigv4 AKIA…`), so that a secret moved to another row does not open.
    ValueError above SECRET_BYTES_MAX.
    """
    if len(secret) > SECRET_BYTES_MAX:
        raise ValueError(f"a secret has at most {SECRET_BYTES_MAX} bytes")
    head = _SECRET_HEAD.pack(_SECRET_FORMAT, key_version)
    aead = AESGCM(derive_key(system_key, _SECRET, cluster_id))
    return head + nonce + aead.encrypt(nonce, secret, _secret_place(head, cluster_id, purpose))


def parse_secret_key_version(sealed_secret: bytes) -> int:
    """The version of the system key that opens it. SealBroken when it is no sealed secret."""
    if len(sealed_secret) < SEALED_SECRET_OVERHEAD_BYTES or sealed_secret[0] != _SECRET_FORMAT:
        raise SealBroken("not a sealed secret")
    return int.from_bytes(sealed_secret[1:5], "big")


def open_secret(system_key: bytes, cluster_id: bytes, purpose: str, sealed_secret: bytes) -> bytes:
    """The inverse of seal_secret. SealBroken."""
    parse_secret_key_version(sealed_secret)
    head, nonce, sealed = sealed_secret[:5], sealed_secret[5:17], sealed_secret[17:]
    try:
        return AESGCM(derive_key(system_key, _SECRET, cluster_id)).decrypt(
            nonce, sealed, _secret_place(head, cluster_id, purpose)
        )
    except InvalidTag:
        raise SealBroken("a sealed secret does not open") from None


def _secret_place(head: bytes, cluster_id: bytes, purpose: str) -> bytes:
    return _SECRET + head + cluster_id + purpose.encode()
