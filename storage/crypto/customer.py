"""PURE. Sealing with a customer's key (SSE-C): what is derived from it, so that without it nothing opens.

    bucket key ┬ HKDF-Extract ─ mixed key ┬ derives ─ wrapping key of a blob ─ wraps ─ data key     (keys.py, as ever)
    customer key ┘                        ├ derives ─ check of the key, under a salt
                                          └ derives ─ seal of the object's checksums, under the same salt

The customer's key is never stored. The mixed key (RFC 5869, section 2.2: the bucket key is the salt) takes the place of
the bucket key: whoever has only one of the two learns nothing. The check says whether a key is the one that was used
before anything is opened; a checksum of the plaintext would tell short objects, so it is sealed as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.base.errors import SealBroken
from storage.crypto.keys import KEY_BYTES, NONCE_BYTES, derive_key

CUSTOMER_KEY_BYTES = KEY_BYTES
SALT_BYTES = 16
CHECK_BYTES = KEY_BYTES

_MIX = b"frostbyte customer key 1"
_CHECK = b"frostbyte customer check 1"
_CHECKSUM = b"frostbyte customer checksum 1"


class CustomerKey(NamedTuple):
    """The 32 bytes that a customer brings with each request. `repr` hides them."""

    secret: bytes

    def __repr__(self) -> str:
        return "CustomerKey(…)"

    @property
    def md5_base64(self) -> str:
        """As clients send it along and get it back."""
        return base64.b64encode(hashlib.md5(self.secret, usedforsecurity=False).digest()).decode("ascii")


def mix_customer_key(bucket_key: bytes, cluster_id: bytes, customer_key: CustomerKey) -> bytes:
    """32 bytes to be used in the bucket key's place."""
    return hmac.digest(bucket_key, _MIX + cluster_id + customer_key.secret, "sha256")


def make_customer_check(mixed_key: bytes, cluster_id: bytes, salt: bytes) -> bytes:
    """salt ++ 32 bytes by which the customer's key is recognised; kept with the object."""
    return salt + derive_key(mixed_key, _CHECK, cluster_id + salt)


def verify_customer_check(check: bytes, mixed_key: bytes, cluster_id: bytes) -> bool:
    """Whether it was made with this key; compared in constant time."""
    return hmac.compare_digest(check, make_customer_check(mixed_key, cluster_id, check[:SALT_BYTES]))


def seal_checksum(mixed_key: bytes, cluster_id: bytes, salt: bytes, nonce: bytes, algorithm: str, text: str) -> str:
    """A checksum's value at rest: base64 of nonce (12 random bytes) ++ ciphertext ++ tag."""
    aead = AESGCM(derive_key(mixed_key, _CHECKSUM, cluster_id + salt))
    return base64.b64encode(nonce + aead.encrypt(nonce, text.encode(), _checksum_place(cluster_id, algorithm))).decode()


def open_checksum(mixed_key: bytes, cluster_id: bytes, salt: bytes, algorithm: str, sealed: str) -> str:
    """The inverse of seal_checksum. SealBroken."""
    aead = AESGCM(derive_key(mixed_key, _CHECKSUM, cluster_id + salt))
    try:
        raw = base64.b64decode(sealed, validate=True)
        text = aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _checksum_place(cluster_id, algorithm))
    except (InvalidTag, ValueError):  # ValueError: no base64, or a nonce that was cut short
        raise SealBroken("a sealed checksum does not open") from None
    return text.decode()


def _checksum_place(cluster_id: bytes, algorithm: str) -> bytes:
    return _CHECKSUM + cluster_id + algorithm.encode()
