"""What a body is sealed under when the bucket's own key alone is not what was asked for."""

from __future__ import annotations

from typing import NamedTuple

from storage.crypto.customer import CustomerKey, mix_customer_key
from storage.crypto.keyring import BucketKey, Keyring


class Seal(NamedTuple):
    """A named key (SSE-KMS), or a customer's key mixed into the bucket's (SSE-C). Nothing of it is secret in a repr."""

    key_id: str = ""
    """of the keyring; `` the bucket's own"""
    customer_key: CustomerKey | None = None

    def choose_key(self, keyring: Keyring, cluster_id: bytes, bucket_key_id: str) -> BucketKey:
        """What blobs are sealed with and what they record. UnknownKeyId."""
        key = keyring.current_bucket_key(self.key_id or bucket_key_id)
        if self.customer_key is None:
            return key
        return key._replace(secret=mix_customer_key(key.secret, cluster_id, self.customer_key))
