"""SANS-IO. AWS Signature Version 4 for S3: whether a claim holds.

    claim = parse_claim(request, region)            (claims.py) None: anonymous
    the caller looks up the secret of claim.access_key_id, or raises InvalidAccessKeyId
    verified = verify_claim(request, claim, secret_access_key, now_s, signing_keys)

Source: Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". Time is a parameter, and so is the
host (RawRequest.host): behind a trusted proxy it is the forwarded one. A proxy that rewrites any other signed header
breaks the signature, as it does on AWS; but for Accept-Encoding, which some clients sign, many proxies rewrite, and
nothing here depends on.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from s3gw.protocol.claims import (
    ALGORITHM,
    REMEMBERED_MAX,
    SERVICE,
    SIGNATURE_LAST,
    TERMINAL,
    Claim,
    RawRequest,
    decode_query_word,
    may_remember,
)
from s3gw.protocol.errors import S3Error
from storage.crypto.prepared_mac import PreparedKey

SKEW_S_MAX = 15 * 60
SIGNING_KEYS_MAX = 4096
"""cached; an entry is some 200 bytes"""

_PLAIN_PATH = re.compile(rb"[A-Za-z0-9\-._~/]*")
_PLAIN_QUERY_WORD = re.compile(rb"[A-Za-z0-9\-._~]*")
_STRICT_WORD = (
    rb"(?:[A-Za-z0-9\-._~]++|%(?:[0189A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[B-DF]))*+"  # all but unreserved
)
_STRICT_PAIR = _STRICT_WORD + rb"(?:=" + _STRICT_WORD + rb")?+"
_STRICT_QUERY = re.compile(_STRICT_PAIR + rb"(?:&" + _STRICT_PAIR + rb")*+")
"""as most clients send it: every word is spelled as it is signed, and only the order may differ"""
_CUSTOMER_KEY = re.compile(rb"(?i)(-server-side-encryption-customer-key[:=])[^&\n]*")
"""the one value of a canonical request that is told to nobody"""
_ACCEPT_ENCODINGS = (b"identity", b"gzip", b"gzip, deflate", b"gzip,deflate", b"")
"""what clients sign, should a proxy have put another value in its place"""
_HOST_ALONE = ("host",)
"""what most presigned requests sign"""
_ADDED_ON_THE_WAY = frozenset({b"x-amz-cf-id"})
"""x-amz-* headers that a content delivery network adds after the client has signed"""


class SigningKey(PreparedKey):
    """What the requests of one access key are signed with on one day."""


class Verified(NamedTuple):
    """A claim that holds, and the key that signed it (which signs the chunks of a streaming body too).

    path_as_sent, query_as_sent: it holds only over what was sent, not over its canonical form: worth a log line.
    """

    claim: Claim
    signing_key: SigningKey
    path_as_sent: bool = False
    query_as_sent: bool = False

    def __repr__(self) -> str:
        return f"Verified({self.claim.access_key_id}, {self.claim.scope})"


class SigningKeys:
    """A bounded cache of derived signing keys, which cost four HMACs each and live for a day; first in, first out."""

    def __init__(self, count_max: int = SIGNING_KEYS_MAX) -> None:
        self._count_max = count_max
        self._keys: dict[tuple[str, str, str, str], SigningKey] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def derive(self, access_key_id: str, secret_access_key: str, date: str, region: str) -> SigningKey:
        """32 bytes. The secret is part of what is looked up, so a replaced secret never meets the old one's entry."""
        entry = (access_key_id, secret_access_key, date, region)
        signing_key = self._keys.get(entry)
        if signing_key is None:
            if len(self._keys) >= self._count_max:
                del self._keys[next(iter(self._keys))]
            signing_key = self._keys[entry] = SigningKey(derive_signing_key(secret_access_key, date, region))
        return signing_key


def derive_signing_key(secret_access_key: str, date: str, region: str) -> bytes:
    """The chain of HMACs over date, region, service and terminal → 32 bytes."""
    signing_key = b"AWS4" + secret_access_key.encode()
    for word in (date, region, SERVICE, TERMINAL):
        signing_key = hmac.digest(signing_key, word.encode(), "sha256")
    return signing_key


def verify_claim(
    request: RawRequest, claim: Claim, secret_access_key: str, now_s: float, signing_keys: SigningKeys
) -> Verified:
    """Check the time window, that all that must be signed is signed, and the signature.

    S3Error: RequestTimeTooSkewed, AccessDenied (expired, not yet valid, headers left unsigned), SignatureDoesNotMatch,
    whose `extra` holds the string to sign and the canonical request for the log and for `frostbyte doctor`.
    """
    _check_time(claim, now_s)
    _check_signed_headers(request, claim)
    query = request.query_string
    signing_key = signing_keys.derive(claim.access_key_id, secret_access_key, claim.date, claim.region)
    rest = _canonical_rest(request, claim)
    canonical = _canonical_request(request.method, encode_path(request.raw_path), encode_query(query), rest)
    if _holds(claim, signing_key, canonical):
        return Verified(claim, signing_key)
    other = _find_other_spelling(request, claim, signing_key, rest)
    if other is not None:
        return other
    text = string_to_sign(claim, canonical)
    shown = _CUSTOMER_KEY.sub(rb"\1<hidden>", canonical)
    raise S3Error(
        "SignatureDoesNotMatch",
        AWSAccessKeyId=claim.access_key_id,
        StringToSign=text,
        SignatureProvided=claim.signature,
        StringToSignBytes=text.encode().hex(" "),
        CanonicalRequest=shown.decode("utf-8", "backslashreplace"),
        CanonicalRequestBytes=shown.hex(" "),
    )


def _find_other_spelling(request: RawRequest, claim: Claim, signing_key: SigningKey, rest: bytes) -> Verified | None:
    """Whether the claim holds over the request as the client may have spelled it."""
    query = request.query_string
    path, canonical_query = encode_path(request.raw_path), encode_query(query)
    # Some clients sign their own spelling: curl before 8 leaves the query unsorted, others leave `!'()*` in the path.
    # A signature over the very bytes that were sent is as good a proof.
    for path_as_sent, query_as_sent in ((True, False), (False, True), (True, True)):
        as_sent = _canonical_request(
            request.method,
            request.raw_path if path_as_sent else path,
            query if query_as_sent else canonical_query,
            rest,
        )
        if _holds(claim, signing_key, as_sent):
            return Verified(claim, signing_key, path_as_sent, query_as_sent)
    if "accept-encoding" in claim.signed_headers:
        for value in _ACCEPT_ENCODINGS:
            sent = request._replace(headers={**request.headers, b"accept-encoding": value})
            rest = _canonical_rest(sent, claim)
            if _holds(claim, signing_key, _canonical_request(request.method, path, canonical_query, rest)):
                return Verified(claim, signing_key)
    return None


def format_canonical(request: RawRequest, claim: Claim) -> tuple[bytes, bytes]:
    """The canonical request before and after its path."""
    rest = _canonical_rest(request, claim)
    head, _, tail = _canonical_request(request.method, b"\0", encode_query(request.query_string), rest).partition(b"\0")
    return head, tail


def string_to_sign(claim: Claim, canonical_request: bytes) -> str:
    """Algorithm, timestamp, scope and the digest of the canonical request, a line each."""
    digest = hashlib.sha256(canonical_request).hexdigest()
    return f"{ALGORITHM}\n{claim.timestamp}\n{claim.date}/{claim.region}/{SERVICE}/{TERMINAL}\n{digest}"


def encode_path(raw_path: bytes) -> bytes:
    """Decode once and encode again strictly (RFC 3986 §2.3: all but unreserved characters and the slash); no
    normalisation of `.`, `..` or `//`, which are ordinary characters of an object key."""
    if _PLAIN_PATH.fullmatch(raw_path):
        return raw_path or b"/"
    return quote_from_bytes(unquote_to_bytes(raw_path), safe="/~").encode()


def encode_query(query_string: bytes) -> bytes:
    """Every name and value decoded and encoded strictly, without the signature itself, sorted by name and value."""
    rest, separator, signature = query_string.rpartition(SIGNATURE_LAST)
    if separator and b"&" not in signature and may_remember(rest):
        return _recall_query(rest)
    return _encode_query(query_string) if query_string else b""


def _encode_query(query_string: bytes) -> bytes:
    strict = _STRICT_QUERY.fullmatch(query_string) is not None
    pairs = []
    for piece in query_string.split(b"&"):
        name, _, value = piece.partition(b"=")
        if piece and name != b"X-Amz-Signature":
            pairs.append((name, value) if strict else (_encode_query_word(name), _encode_query_word(value)))
    pairs.sort()
    return b"&".join([b"%b=%b" % pair for pair in pairs])


_recall_query = lru_cache(REMEMBERED_MAX)(_encode_query)


def _encode_query_word(raw: bytes) -> bytes:
    if _PLAIN_QUERY_WORD.fullmatch(raw):
        return raw
    return quote_from_bytes(decode_query_word(raw), safe="~").encode()


def _canonical_request(method: str, path: bytes, query: bytes, rest: bytes) -> bytes:
    return b"%b\n%b\n%b\n%b" % (method.encode(), path, query, rest)


def _canonical_rest(request: RawRequest, claim: Claim) -> bytes:
    """The canonical request from its fourth line on: headers, their names, payload."""
    if claim.signed_headers == _HOST_ALONE and b"  " not in request.host:
        return b"host:%b\n\nhost\n%b" % (request.host.strip(), claim.payload_text.encode("latin-1"))
    lines = []
    for name in claim.signed_headers:
        encoded = name.encode()
        value = request.host if name == "host" else request.headers.get(encoded, b"")
        value = value.strip()
        if b"  " in value:
            value = b" ".join(word for word in value.split(b" ") if word)
        lines.append(b"%b:%b" % (encoded, value))
    lines.append(b"")
    lines.append(";".join(claim.signed_headers).encode())
    lines.append(claim.payload_text.encode("latin-1"))
    return b"\n".join(lines)


def _holds(claim: Claim, signing_key: SigningKey, canonical_request: bytes) -> bool:
    expected = signing_key.mac.digest(string_to_sign(claim, canonical_request).encode()).hex()
    return hmac.compare_digest(expected, claim.signature)


def _check_signed_headers(request: RawRequest, claim: Claim) -> None:
    """Host and every x-amz-* header that was sent have to be signed: else anybody on the way could add an ACL."""
    signed = claim.signed_headers
    unsigned = [] if "host" in signed else ["host"]
    for name in request.headers:
        if name.startswith(b"x-amz-") and name not in _ADDED_ON_THE_WAY:
            text = name.decode("latin-1")
            if text not in signed:
                unsigned.append(text)
    if unsigned:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(unsigned),
        )


def _check_time(claim: Claim, now_s: float) -> None:
    if claim.expires_s is None:
        if abs(now_s - claim.time_s) > SKEW_S_MAX:
            raise S3Error(
                "RequestTimeTooSkewed",
                RequestTime=claim.timestamp,
                ServerTime=_format_time(now_s),
                MaxAllowedSkewMilliseconds=str(SKEW_S_MAX * 1000),
            )
        return
    if claim.time_s - now_s > SKEW_S_MAX:
        raise S3Error("AccessDenied", "Request is not yet valid", ServerTime=_format_time(now_s))
    if now_s > claim.time_s + claim.expires_s:
        raise S3Error(
            "AccessDenied",
            "Request has expired",
            **{"X-Amz-Expires": str(claim.expires_s)},
            Expires=_format_time(claim.time_s + claim.expires_s),
            ServerTime=_format_time(now_s),
        )


def _format_time(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
