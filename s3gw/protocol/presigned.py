"""SANS-IO. Presigned requests that differ from an earlier one in path and signature alone.

That is all that differs between the requests which a client presigns within one second. The first of them is verified
by sigv4.py, and what the others share with it (the claim, the rest of the canonical request, the key) is remembered:
they cost a third. Nothing is taken for verified: each path is hashed and its signature compared, within the time that
was signed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import NamedTuple

from s3gw.protocol.claims import SIGNATURE_LAST, PayloadMode, RawRequest, may_remember
from s3gw.protocol.sigv4 import SKEW_S_MAX, SigningKey, Verified, encode_path, format_canonical, string_to_sign

REMEMBERED_MAX = 256

_OF_NO_SIGNATURE = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"content-length", b"content-type"}
    | {b"range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"}
)
"""headers that need not be signed and say nothing of how the request is"""
_HOST_ALONE = ("host",)


class PresignedTerms(NamedTuple):
    """What such requests have in common."""

    access_key_id: str
    secret_access_key: str
    signing_key: SigningKey
    head: bytes
    """of the canonical request, up to the path"""
    tail: bytes
    """of the canonical request, after the path"""
    to_sign: bytes
    """the string to sign, up to the digest of the canonical request"""
    begins_s: float
    ends_s: float
    """seconds since the epoch; both count"""

    def __repr__(self) -> str:
        return f"PresignedTerms({self.access_key_id})"

    def hold(self, raw_path: bytes, signature: bytes, now_s: float) -> bool:
        """Whether this is the signature of a request for this path now."""
        return self.hold_canonical(encode_path(raw_path), signature, now_s)

    def hold_canonical(self, path: bytes, signature: bytes, now_s: float) -> bool:
        """The same of a path that is in its canonical form."""
        if not self.begins_s <= now_s <= self.ends_s:
            return False
        digest = hashlib.sha256(self.head + path + self.tail).hexdigest()
        expected = self.signing_key.mac.digest(self.to_sign + digest.encode()).hex()
        return hmac.compare_digest(expected.encode(), signature)


class PresignedRequests:
    """A bounded memory of terms; first in, first out."""

    def __init__(self, count_max: int = REMEMBERED_MAX) -> None:
        self._count_max = count_max
        self._terms: dict[tuple[str, bytes, bytes], PresignedTerms] = {}

    def __len__(self) -> int:
        return len(self._terms)

    def find(
        self, method: str, query: bytes, host: bytes, headers: Mapping[bytes, bytes]
    ) -> tuple[PresignedTerms, bytes] | None:
        """The terms of a request, if they are known, and its signature, which is still to be checked."""
        rest, _, signature = query.rpartition(SIGNATURE_LAST)
        terms = self._terms.get((method, rest, host))
        return (terms, signature) if terms is not None and _OF_NO_SIGNATURE.issuperset(headers) else None

    def remember(self, request: RawRequest, verified: Verified, secret_access_key: str) -> None:
        """Of a request that was verified; a no-op for one that is no example for others."""
        claim, query = verified.claim, request.query_string
        rest, separator, signature = query.rpartition(SIGNATURE_LAST)
        if (
            claim.expires_s is None
            or claim.signed_headers != _HOST_ALONE
            or claim.payload_mode is not PayloadMode.UNSIGNED
            or verified.path_as_sent
            or verified.query_as_sent
            or not separator
            or b"&" in signature
            or not may_remember(query)
            or not _OF_NO_SIGNATURE.issuperset(request.headers)
        ):
            return
        if len(self._terms) >= self._count_max:
            del self._terms[next(iter(self._terms))]
        head, tail = format_canonical(request, claim)
        to_sign = string_to_sign(claim, b"").rpartition("\n")[0].encode() + b"\n"
        self._terms[request.method, rest, request.host] = PresignedTerms(
            claim.access_key_id,
            secret_access_key,
            verified.signing_key,
            head,
            tail,
            to_sign,
            claim.time_s - SKEW_S_MAX,
            claim.time_s + claim.expires_s,
        )
