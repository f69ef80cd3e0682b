"""What is kept of a customer's key with an object or an upload: a check under a salt, and its checksums sealed.

`Attributes.sse[CHECK]` is hex of salt ++ check; its presence says that nothing opens without the customer's key. The
checksums of the object and of its parts are sealed under the same salt: of a short body they would tell everything.
"""

from __future__ import annotations

import os

import msgspec

from storage.base.errors import Corrupt, CustomerKeyMismatch, CustomerKeyMissing, CustomerKeyNotApplicable
from storage.crypto.customer import (
    CHECK_BYTES,
    SALT_BYTES,
    CustomerKey,
    make_customer_check,
    mix_customer_key,
    open_checksum,
    seal_checksum,
    verify_customer_check,
)
from storage.crypto.keyring import Keyring
from storage.crypto.keys import NONCE_BYTES
from storage.model import Attributes, Bucket, Checksum, Version

CHECK = "check"
CHECK_KEY_VERSION = 1
"""checks are made with the first version of the bucket key, like the MACs of versions"""


class CustomerSeals:
    """One per worker."""

    def __init__(self, cluster_id: bytes, keyring: Keyring) -> None:
        self._cluster_id = cluster_id
        self._keyring = keyring

    def begin(self, bucket: Bucket, attributes: Attributes, customer_key: CustomerKey) -> Attributes:
        """The attributes of a new object or upload with a check of its key, under a salt of its own."""
        check = make_customer_check(self._mix(bucket, customer_key), self._cluster_id, os.urandom(SALT_BYTES))
        return msgspec.structs.replace(attributes, sse={**attributes.sse, CHECK: check.hex()})

    def verify(self, bucket: Bucket, attributes: Attributes, customer_key: CustomerKey | None) -> None:
        """CustomerKeyMissing, CustomerKeyMismatch; CustomerKeyNotApplicable where there is none to have."""
        if CHECK not in attributes.sse:
            if customer_key is not None:
                raise CustomerKeyNotApplicable
        elif customer_key is None:
            raise CustomerKeyMissing
        elif not verify_customer_check(_check_of(attributes), self._mix(bucket, customer_key), self._cluster_id):
            raise CustomerKeyMismatch

    def hide(
        self, bucket: Bucket, attributes: Attributes, customer_key: CustomerKey, checksum: Checksum | None
    ) -> Checksum | None:
        """The checksum as it is kept; attributes: of the object or upload that it belongs to."""
        if checksum is None:
            return None
        salt, mixed = _check_of(attributes)[:SALT_BYTES], self._mix(bucket, customer_key)
        nonce = os.urandom(NONCE_BYTES)
        sealed = seal_checksum(mixed, self._cluster_id, salt, nonce, checksum.algorithm, checksum.value)
        return msgspec.structs.replace(checksum, value=sealed)

    def show(
        self, bucket: Bucket, attributes: Attributes, customer_key: CustomerKey | None, checksum: Checksum | None
    ) -> Checksum | None:
        """The inverse for a key that was verified; None without a key. SealBroken."""
        if checksum is None or customer_key is None:
            return None
        salt, mixed = _check_of(attributes)[:SALT_BYTES], self._mix(bucket, customer_key)
        text = open_checksum(mixed, self._cluster_id, salt, checksum.algorithm, checksum.value)
        return msgspec.structs.replace(checksum, value=text)

    def unlock(self, bucket: Bucket, version: Version, customer_key: CustomerKey | None) -> Version:
        """A version as the holder of its key may see it. Errors as `verify`; a marker has no key to ask for."""
        if version.is_marker:
            return version
        attributes = version.attributes
        self.verify(bucket, attributes, customer_key)
        if customer_key is None or attributes.checksum is None:
            return version
        shown = self.show(bucket, attributes, customer_key, attributes.checksum)
        return msgspec.structs.replace(version, attributes=msgspec.structs.replace(attributes, checksum=shown))

    def _mix(self, bucket: Bucket, customer_key: CustomerKey) -> bytes:
        bucket_key = self._keyring.bucket_key(bucket.bucket_key_id, CHECK_KEY_VERSION)
        return mix_customer_key(bucket_key, self._cluster_id, customer_key)


def _check_of(attributes: Attributes) -> bytes:
    """salt ++ check. Corrupt."""
    try:
        check = bytes.fromhex(attributes.sse[CHECK])
    except ValueError:
        check = b""
    if len(check) != SALT_BYTES + CHECK_BYTES:
        raise Corrupt("an object's check of its customer's key is damaged")
    return check
