"""Who asks on the short way (short_way.py), and for what: the signature of a request, and that its caller may do all
that there is to do in its bucket. Whatever else there may be about it is for the road."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from cluster.directory import Credential
from s3gw.call import Services
from s3gw.known_heads import KnownHead, KnownHeads, KnownRequest
from s3gw.protocol.authorize import owns_everything
from s3gw.protocol.claims import PayloadMode, RawRequest, parse_claim
from s3gw.protocol.presigned import PresignedRequests, PresignedTerms
from s3gw.protocol.routing import QUERY_PARAMETERS_MAX, find_virtual_bucket, parse_target
from s3gw.protocol.sigv4 import SigningKeys, verify_claim
from storage.model import Bucket

REMEMBERED_MAX = 256
"""queries"""

_SERVICE_PAGE = b"/-"
_PAYLOADS = frozenset({PayloadMode.SIGNED, PayloadMode.UNSIGNED})
_SAME_EACH_TIME = frozenset(
    {b"host", b"user-agent", b"accept", b"accept-encoding", b"connection", b"content-length", b"content-type"}
)
"""headers of requests that are worth remembering"""


class Asked(NamedTuple):
    """A request whose signature holds, and whose caller may do all in its bucket."""

    credential: Credential
    bucket: Bucket
    object_key: bytes
    payload_text: str
    """the SHA-256 of the body that was signed; `` where it was not"""


class ShortAsker:
    """Of a worker."""

    def __init__(self, services: Services, signing_keys: SigningKeys) -> None:
        self._clock = services.clock
        self._directory = services.directory
        self._settings = services.settings
        self._signing_keys = signing_keys
        self._presigned = PresignedRequests()
        self._heads = KnownHeads()
        self.find_known = self._heads.find
        """of data: as KnownHeads.find"""

    def authenticate(
        self, method: str, url: bytes, headers: Mapping[bytes, bytes], client_address: str
    ) -> Asked | None:
        """None for what the road must look at. S3Error: it will find the same."""
        path, _, query = url.partition(b"?")
        settings = self._settings
        if (
            path.startswith(_SERVICE_PAGE)
            or not path.startswith(b"/")
            or b"#" in url
            or client_address in settings.trusted_proxies
            or (query and not _is_signature(query))
        ):
            return None
        host = headers.get(b"host", b"")
        if query and (found := self._presigned.find(method, query, host, headers)) is not None:
            return self._check_presigned(path, host, *found)
        raw = RawRequest(method, path, query, headers, host)
        claim = parse_claim(raw, settings.region)
        if claim is None or claim.payload_mode not in _PAYLOADS:
            return None
        bucket_name, object_key = parse_target(path, raw.host.decode("latin-1"), settings.domains)
        known = self._directory.recall(claim.access_key_id, bucket_name)
        if known is None or not object_key:
            return None
        credential, bucket = known
        now_s = self._clock.now_ms() / 1000
        verified = verify_claim(raw, claim, credential.secret_access_key, now_s, self._signing_keys)
        if verified.path_as_sent or verified.query_as_sent or not owns_everything(credential.user, bucket):
            return None
        if claim.expires_s is not None:
            self._presigned.remember(raw, verified, credential.secret_access_key)
        payload_text = claim.payload_text if claim.payload_mode is PayloadMode.SIGNED else ""
        return Asked(credential, bucket, object_key, payload_text)

    def authenticate_known(self, known: KnownRequest, client_address: str) -> Asked | None:
        """As authenticate."""
        terms = known.head.terms
        if client_address in self._settings.trusted_proxies or not terms.hold_canonical(
            known.path, known.signature, self._clock.now_ms() / 1000
        ):
            return None
        return self._recall(terms, known.bucket_name.decode("ascii"), known.object_key)

    def remember(self, data: bytes, method: str, url: bytes, headers: Mapping[bytes, bytes], length: int) -> None:
        """Of a request that was authenticated, with a body of so many bytes; a no-op for one that is no example for
        others. data: it, from its first byte."""
        host, query = headers.get(b"host", b""), url.partition(b"?")[2]
        if (
            query
            and _SAME_EACH_TIME.issuperset(headers)
            and (found := self._presigned.find(method, query, host, headers)) is not None
            and not find_virtual_bucket(host.decode("latin-1"), self._settings.domains)
        ):
            self._heads.remember(data, KnownHead(found[0], headers, length))

    def _check_presigned(self, path: bytes, host: bytes, terms: PresignedTerms, signature: bytes) -> Asked | None:
        """As authenticate, of a request whose terms are known."""
        bucket_name, object_key = parse_target(path, host.decode("latin-1"), self._settings.domains)
        if not object_key or not terms.hold(path, signature, self._clock.now_ms() / 1000):
            return None
        return self._recall(terms, bucket_name, object_key)

    def _recall(self, terms: PresignedTerms, bucket_name: str, object_key: bytes) -> Asked | None:
        """Of a request whose signature holds under these terms."""
        known = self._directory.recall(terms.access_key_id, bucket_name)
        if known is None:
            return None
        credential, bucket = known
        if credential.secret_access_key != terms.secret_access_key or not owns_everything(credential.user, bucket):
            return None
        return Asked(credential, bucket, object_key, "")


def _is_signature(query: bytes) -> bool:
    """Whether all parameters belong to a presigned signature, but for SDKs' x-id, which means nothing."""
    rest, _, last = query.rpartition(b"&")
    return last.startswith((b"X-Amz-Signature=", b"x-id=")) and (not rest or _is_rest_of_signature(rest))


@lru_cache(REMEMBERED_MAX)
def _is_rest_of_signature(query: bytes) -> bool:
    pieces = query.split(b"&")
    return len(pieces) < QUERY_PARAMETERS_MAX and all(piece.startswith((b"X-Amz-", b"x-id=")) for piece in pieces)
