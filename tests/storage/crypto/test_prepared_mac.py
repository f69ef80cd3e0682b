"""HMAC with what depends on the key worked out before."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from storage.crypto.prepared_mac import PreparedMac


@given(st.binary(max_size=200), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_it_is_hmac(secret: bytes, messages: list[bytes]) -> None:
    """For keys shorter and longer than a block, and any number of messages."""
    mac = PreparedMac(secret)
    for message in messages:
        assert mac.digest(message) == hmac.digest(secret, message, "sha256")
