"""SANS-IO. What a request says of who signed it: the Authorization header or the presigned query as one typed claim.

Nothing of a claim is proved; sigv4.py proves it. Source: Amazon S3 API Reference, "Authenticating Requests (AWS
Signature Version 4)"; the sentences of the errors are those that AWS answers with, since clients print them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple, NoReturn, Protocol
from urllib.parse import unquote_to_bytes

from s3gw.protocol.errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
TERMINAL = "aws4_request"
PRESIGN_EXPIRES_S_MAX = 7 * 24 * 3600
SIGNED_HEADERS_MAX = 128
REMEMBERED_MAX = 256
"""of each kind of field that comes again and again: names, credentials, times, lists of signed headers"""
SIGNATURE_LAST = b"&X-Amz-Signature="
"""where nearly all presigners put it: all before it is the same for whatever a client signs within a second"""

_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_DATE = re.compile(r"[0-9]{8}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_QUERY_MECHANISM = re.compile(rb"(?:^|&)(X-Amz-Algorithm|X-Amz-Credential|X-Amz-Signature|AWSAccessKeyId)=")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")

_V4_ONLY = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
_ONE_MECHANISM = (
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or "
    "the Authorization header should be specified"
)
_PRESIGN_PARAMETERS = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)
_PRESIGN_TERMS = tuple(name for name in _PRESIGN_PARAMETERS if name != "X-Amz-Signature")
_MISSING_PRESIGN_PARAMETERS = (
    f"Query-string authentication version 4 requires the {', '.join(_PRESIGN_PARAMETERS[:-1])}, and "
    f"{_PRESIGN_PARAMETERS[-1]} parameters."
)


class PayloadMode(enum.Enum):
    """How x-amz-content-sha256 says the body is protected. The value is what the header says, but for SIGNED."""

    SIGNED = "a valid sha256 value"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


_MODES_BY_TEXT = {mode.value: mode for mode in PayloadMode if mode is not PayloadMode.SIGNED}
_PAYLOAD_CHOICES = f"x-amz-content-sha256 must be {', '.join(_MODES_BY_TEXT)} or {PayloadMode.SIGNED.value}."


class RawRequest(NamedTuple):
    """A request as it came. headers: names lower-case, one value a name (see join_headers)."""

    method: str
    raw_path: bytes
    query_string: bytes
    headers: Mapping[bytes, bytes]
    host: bytes
    """the host that the client addressed: the Host header, or what a trusted proxy forwards"""

    def __repr__(self) -> str:
        return f"RawRequest({self.method} {self.raw_path[:256]!r})"  # headers and query may hold what is secret


class Claim(NamedTuple):
    """Who claims to have signed, when, and over what."""

    access_key_id: str
    date: str
    region: str
    timestamp: str
    """YYYYMMDDTHHMMSSZ"""
    time_s: float
    """the same, in seconds since the epoch"""
    signed_headers: tuple[str, ...]
    signature: str
    """64 hex digits"""
    payload_text: str
    """the last line of the canonical request: a digest or the name of a mode"""
    payload_mode: PayloadMode
    expires_s: int | None = None
    """of a presigned request; None when signed by header"""

    @property
    def scope(self) -> str:
        """The credential scope, as it is signed."""
        return f"{self.date}/{self.region}/{SERVICE}/{TERMINAL}"


class Credential(NamedTuple):
    """Whose key signs, on which day and in which region."""

    access_key_id: str
    date: str
    region: str


class _Refusal(Protocol):
    """Puts a reason into the error of the header or of the query."""

    def __call__(self, reason: str, **extra: str) -> S3Error: ...


def join_headers(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """ASGI's header list → one value a name; values of a repeated name are joined by a comma, as they are signed."""
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name in headers:
            headers[name] += b"," + value
        else:
            headers[name] = value
    return headers


def parse_claim(request: RawRequest, region: str | None) -> Claim | None:
    """The claim of a request; None when it makes none (anonymous).

    region: the only one accepted; None accepts any. S3Error: AuthorizationHeaderMalformed (with the right Region),
    AuthorizationQueryParametersError, AccessDenied (no date), InvalidRequest (SigV2, ECDSA, no x-amz-content-sha256),
    InvalidArgument (its value, an unknown or a second mechanism), InvalidToken (session tokens are not issued here).
    """
    headers, query = request.headers, request.query_string
    authorization = headers.get(b"authorization")
    mechanism = _QUERY_MECHANISM.search(query) if query else None
    presigned = mechanism is not None and mechanism[1] != b"AWSAccessKeyId"
    if authorization is None and not presigned:
        if mechanism is not None:
            raise S3Error("InvalidRequest", _V4_ONLY)
        return None
    if b"x-amz-security-token" in headers or (presigned and b"X-Amz-Security-Token=" in query):
        raise S3Error("InvalidToken")
    if authorization is None:
        return _parse_presigned(query, headers.get(b"x-amz-content-sha256"), region)
    if presigned:
        raise S3Error("InvalidArgument", _ONE_MECHANISM, ArgumentName="Authorization")
    return _parse_authorization(authorization.decode("latin-1"), headers, region)


def make_anonymous_claim(request: RawRequest) -> Claim:
    """What stands for a claim where nobody signs: the payload's mode alone counts, and no chunk of it can be signed.

    InvalidArgument for an x-amz-content-sha256 of no meaning, InvalidRequest for a mode that needs a signature.
    """
    payload = request.headers.get(b"x-amz-content-sha256")
    payload_text = payload.decode("latin-1").strip() if payload else PayloadMode.UNSIGNED.value
    mode = parse_payload_mode(payload_text)
    if mode in (PayloadMode.STREAMING_SIGNED, PayloadMode.STREAMING_SIGNED_TRAILER):
        raise S3Error("InvalidRequest", "A body of signed chunks needs a signed request.")
    return Claim("", "", "", "", 0.0, (), "", payload_text, mode)


def parse_payload_mode(text: str) -> PayloadMode:
    """The value of x-amz-content-sha256 → its mode. InvalidArgument for anything else, the ECDSA modes included."""
    mode = _MODES_BY_TEXT.get(text)
    if mode is not None:
        return mode
    if _SHA256_HEX.fullmatch(text):
        return PayloadMode.SIGNED
    raise S3Error("InvalidArgument", _PAYLOAD_CHOICES, ArgumentName="x-amz-content-sha256", ArgumentValue=text[:256])


def decode_query_word(raw: bytes) -> bytes:
    """Percent-decoding of a query's name or value, where a plus sign stands for a space."""
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    return unquote_to_bytes(raw) if b"%" in raw else raw


def _parse_authorization(text: str, headers: Mapping[bytes, bytes], region: str | None) -> Claim:
    mechanism, _, rest = text.strip().partition(" ")
    if mechanism != ALGORITHM:
        _refuse_mechanism(mechanism)
    fields: dict[str, str] = {}
    for piece in rest.split(","):
        name, separator, value = piece.strip().partition("=")
        if not separator or name in fields:
            raise _malformed("a list of Name=Value is expected after the algorithm.")
        fields[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if not fields.get(name):
            raise _malformed(f"{name} is missing.")
    credential = parse_credential(fields["Credential"], region, _malformed)
    timestamp, time_s = _find_time(headers)
    _check_date(credential, timestamp, _malformed)
    payload = headers.get(b"x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    payload_text = payload.decode("latin-1").strip()
    return Claim(
        *credential,
        timestamp=timestamp,
        time_s=time_s,
        signed_headers=_parse_signed_headers(fields["SignedHeaders"], _malformed),
        signature=_parse_signature(fields["Signature"], _malformed),
        payload_text=payload_text,
        payload_mode=parse_payload_mode(payload_text),
    )


def _parse_presigned(query: bytes, payload: bytes | None, region: str | None) -> Claim:
    rest, separator, signature = query.rpartition(SIGNATURE_LAST)
    if not separator or b"&" in signature or b"X-Amz-Signature" in rest:
        rest, signature = _take_signature(query)
    terms = (_recall_terms if may_remember(rest) else _parse_terms)(rest, region, bool(signature))
    # A header wins over the parameter that some presigners hoist into the query.
    payload_text = payload.decode("latin-1").strip() if payload else terms.payload_text
    return Claim(
        terms.access_key_id,
        terms.date,
        terms.region,
        terms.timestamp,
        terms.time_s,
        terms.signed_headers,
        _parse_signature(decode_query_word(signature).decode("latin-1"), _bad_query),
        payload_text,
        parse_payload_mode(payload_text),
        terms.expires_s,
    )


def _take_signature(query: bytes) -> tuple[bytes, bytes]:
    """The query without its signature, wherever that is, and the signature; empty where there is none."""
    signature: bytes | None = None
    rest: list[bytes] = []
    for piece in query.split(b"&"):
        name, _, value = piece.partition(b"=")
        if name.startswith(b"X-Amz-") and _decode_field(name) == "X-Amz-Signature":
            signature = value if signature is None else signature
        else:
            rest.append(piece)
    return b"&".join(rest), signature or b""


def may_remember(query: bytes) -> bool:
    """Whether a query holds no header that was hoisted into it: that may be a customer's key."""
    return b"x-amz-" not in query


def _parse_terms(query: bytes, region: str | None, is_signed: bool) -> Claim:
    """What a presigned query says beside its signature: the same for all that one client signs within a second."""
    fields: dict[str, str] = {}
    for piece in query.split(b"&"):
        if piece.startswith(b"X-Amz-"):
            name, _, value = piece.partition(b"=")
            fields.setdefault(_decode_field(name), _decode_field(value))
    if fields.get("X-Amz-Algorithm", ALGORITHM) != ALGORITHM:
        raise _bad_query('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    if not is_signed or not all(fields.get(name) for name in _PRESIGN_TERMS):
        raise _bad_query(_MISSING_PRESIGN_PARAMETERS)
    credential = parse_credential(fields["X-Amz-Credential"], region, bad_credential)
    timestamp = fields["X-Amz-Date"]
    time_s = _parse_timestamp(timestamp)
    if time_s is None:
        raise _bad_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    _check_date(credential, timestamp, _bad_query)
    return Claim(
        *credential,
        timestamp=timestamp,
        time_s=time_s,
        signed_headers=_parse_signed_headers(fields["X-Amz-SignedHeaders"], _bad_query),
        signature="",
        payload_text=fields.get("X-Amz-Content-Sha256", "") or PayloadMode.UNSIGNED.value,
        payload_mode=PayloadMode.UNSIGNED,
        expires_s=_parse_expires(fields["X-Amz-Expires"]),
    )


_recall_terms = lru_cache(REMEMBERED_MAX)(_parse_terms)


# ------------------------------------------------------------------ the fields that header and query share


@lru_cache(REMEMBERED_MAX)
def _decode_field(raw: bytes) -> str:
    return decode_query_word(raw).decode("latin-1")


@lru_cache(REMEMBERED_MAX)
def parse_credential(text: str, region: str | None, refusal: _Refusal) -> Credential:
    """`id/date/region/service/terminal`; the id itself may hold slashes."""
    words = text.rsplit("/", 4)
    if len(words) != 5 or not words[0] or not words[2]:
        raise refusal('the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".')
    access_key_id, date, claimed_region, service, terminal = words
    if not _DATE.fullmatch(date):
        raise refusal(
            f'incorrect date format "{date[:32]}". This date in the credential must be in the format "yyyyMMdd".'
        )
    if region is not None and claimed_region != region:
        raise refusal(f"the region '{claimed_region[:64]}' is wrong; expecting '{region}'", Region=region)
    if service != SERVICE:
        raise refusal(f'incorrect service "{service[:64]}". This endpoint belongs to "{SERVICE}".')
    if terminal != TERMINAL:
        raise refusal(f'incorrect terminal "{terminal[:64]}". This endpoint uses "{TERMINAL}".')
    return Credential(access_key_id, date, claimed_region)


@lru_cache(REMEMBERED_MAX)
def _parse_signed_headers(text: str, refusal: _Refusal) -> tuple[str, ...]:
    names = tuple(text.split(";"))
    if len(names) > SIGNED_HEADERS_MAX or not all(map(_HEADER_NAME.fullmatch, names)):
        raise refusal("SignedHeaders must be a list of lower-case header names, separated by semicolons.")
    return names


def _parse_signature(text: str, refusal: _Refusal) -> str:
    if not _SHA256_HEX.fullmatch(text):
        raise refusal("the Signature must be 64 hexadecimal digits.")
    return text


def _parse_expires(text: str) -> int:
    """Of an address that was over before it began, 0: it has expired, where AWS calls it malformed."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 20):
        raise _bad_query("X-Amz-Expires should be a number")
    if int(text) > PRESIGN_EXPIRES_S_MAX:
        raise _bad_query(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than "
            f"{PRESIGN_EXPIRES_S_MAX} seconds"
        )
    return max(int(text), 0)


def _check_date(credential: Credential, timestamp: str, refusal: _Refusal) -> None:
    if credential.date != timestamp[:8]:
        raise refusal(
            f'Invalid credential date "{credential.date}". This date is not the same as X-Amz-Date: "{timestamp[:8]}".'
        )


def _find_time(headers: Mapping[bytes, bytes]) -> tuple[str, float]:
    """X-Amz-Date, else Date in either of its forms → (timestamp, seconds since the epoch)."""
    raw = headers.get(b"x-amz-date") or headers.get(b"date")
    text = raw.decode("latin-1").strip() if raw else ""
    time_s = _parse_timestamp(text)
    if time_s is not None:
        return text, time_s
    try:
        moment = parsedate_to_datetime(text)
        # `-0000` says UTC without a zone of its own and comes back naive.
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None
    return f"{moment:%Y%m%dT%H%M%SZ}", moment.timestamp()


@lru_cache(REMEMBERED_MAX)
def _parse_timestamp(text: str) -> float | None:
    if not _TIMESTAMP.fullmatch(text):
        return None
    try:
        moment = datetime(
            int(text[:4]),
            int(text[4:6]),
            int(text[6:8]),
            int(text[9:11]),
            int(text[11:13]),
            int(text[13:15]),
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return moment.timestamp()


def _refuse_mechanism(mechanism: str) -> NoReturn:
    if mechanism == "AWS" or mechanism.startswith("AWS4-"):
        raise S3Error("InvalidRequest", _V4_ONLY)
    raise S3Error("InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization")


def _malformed(reason: str, **extra: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed; {reason}", **extra)


def _bad_query(reason: str, **extra: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", reason, **extra)


def bad_credential(reason: str, **extra: str) -> S3Error:
    """Of a query or a form."""
    return _bad_query(f"Error parsing the X-Amz-Credential parameter; {reason}", **extra)
