"""PURE. The checksums that clients send with their bodies and that objects keep.

Source: Amazon S3 User Guide, "Checking object integrity"; the sentences of the errors are AWS's. Values are base64 of
the big-endian digest. A multipart object has either the checksum of its whole bytes (FULL_OBJECT, put together from
those of its parts without reading a byte again: CRCs only) or that of its parts' digests and `-N` (COMPOSITE).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from awscrt import checksums as crt
from isal import isal_zlib

from s3gw.protocol.errors import S3Error
from storage.crypto.envelope import Buffer
from storage.model import Checksum, ChecksumAlgorithm, ChecksumType

DEFAULT_ALGORITHM = ChecksumAlgorithm.CRC64NVME
"""what AWS computes, stores and returns when the client names none"""

DIGEST_BYTES = {
    ChecksumAlgorithm.CRC32: 4,
    ChecksumAlgorithm.CRC32C: 4,
    ChecksumAlgorithm.CRC64NVME: 8,
    ChecksumAlgorithm.SHA1: 20,
    ChecksumAlgorithm.SHA256: 32,
}

_HEADER_PREFIX = b"x-amz-checksum-"
_HEADERS = {_HEADER_PREFIX + algorithm.lower().encode(): algorithm for algorithm in ChecksumAlgorithm}
_OTHER_HEADERS = frozenset({b"x-amz-checksum-algorithm", b"x-amz-checksum-type", b"x-amz-checksum-mode"})
_TYPES = {
    ChecksumAlgorithm.CRC32: (ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT),
    ChecksumAlgorithm.CRC32C: (ChecksumType.COMPOSITE, ChecksumType.FULL_OBJECT),
    ChecksumAlgorithm.CRC64NVME: (ChecksumType.FULL_OBJECT,),
    ChecksumAlgorithm.SHA1: (ChecksumType.COMPOSITE,),
    ChecksumAlgorithm.SHA256: (ChecksumType.COMPOSITE,),
}
"""of a multipart upload; the first is the default"""

_SEVERAL = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."


class Hasher(Protocol):
    """hashlib's shape."""

    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC function with hashlib's shape."""

    __slots__ = ("_digest_bytes", "_function", "_value")

    def __init__(self, function: Callable[[Buffer, int], int], digest_bytes: int) -> None:
        self._function = function
        self._digest_bytes = digest_bytes
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._digest_bytes, "big")


class RequestedChecksum(NamedTuple):
    """What a request says of its body's checksum.

    value: base64, None when a trailer is to bring it. in_trailer: announced by x-amz-trailer.
    """

    algorithm: ChecksumAlgorithm
    value: str | None
    in_trailer: bool = False


def new_hasher(algorithm: ChecksumAlgorithm) -> Hasher:
    """An incremental hasher of zero bytes so far."""
    match algorithm:
        case ChecksumAlgorithm.CRC32:
            return _Crc(isal_zlib.crc32, 4)  # a tenth of what zlib's and awscrt's cost
        case ChecksumAlgorithm.CRC32C:
            return _Crc(crt.crc32c, 4)
        case ChecksumAlgorithm.CRC64NVME:
            return _Crc(crt.crc64nvme, 8)
        case ChecksumAlgorithm.SHA1:
            return hashlib.sha1(usedforsecurity=False)
        case ChecksumAlgorithm.SHA256:
            return hashlib.sha256()


def header_name(algorithm: ChecksumAlgorithm) -> str:
    """`x-amz-checksum-crc32c` and its like: of requests, responses and trailers."""
    return f"x-amz-checksum-{algorithm.lower()}"


def encode_digest(digest: bytes) -> str:
    """As it stands in headers and in storage.model.Checksum."""
    return base64.b64encode(digest).decode()


def decode_value(algorithm: ChecksumAlgorithm, value: str) -> bytes:
    """base64 → the digest. ValueError for anything that is not the strict base64 of a digest of this algorithm."""
    digest = binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    if len(digest) != DIGEST_BYTES[algorithm]:
        raise ValueError(f"a {algorithm} has {DIGEST_BYTES[algorithm]} bytes, not {len(digest)}")
    return digest


def check_value(algorithm: ChecksumAlgorithm, value: str, place: str = "header") -> str:
    """The value back when it is well-formed. place: where it stood, for the sentence.

    BadDigest, as Ceph has it: no body has such a checksum. AWS says the same sentence under InvalidRequest, also 400.
    """
    try:
        decode_value(algorithm, value)
    except ValueError:
        raise S3Error("BadDigest", f"Value for {header_name(algorithm)} {place} is invalid.") from None
    return value


# ------------------------------------------------------------------ what a request says


def parse_requested_checksum(headers: Mapping[bytes, bytes]) -> RequestedChecksum | None:
    """The checksum that a request brings, by header or by an announced trailer; None when it brings none.

    headers: one value a name (claims.join_headers). InvalidRequest: several, unknown or malformed ones, or
    x-amz-sdk-checksum-algorithm naming another or none.
    """
    requested = _parse_header(headers)
    trailer = headers.get(b"x-amz-trailer")
    if trailer:
        announced = _parse_announced(trailer)
        if requested is not None and announced is not None:
            raise S3Error("InvalidRequest", _SEVERAL)
        requested = requested or announced
    named = headers.get(b"x-amz-sdk-checksum-algorithm")
    if named:
        algorithm = parse_algorithm(named.decode("latin-1"), "x-amz-sdk-checksum-algorithm")
        if requested is None:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
                "headers were found.",
            )
        if algorithm is not requested.algorithm:
            raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return requested


def parse_algorithm(text: str, header: str = "x-amz-checksum-algorithm") -> ChecksumAlgorithm:
    """`crc32c`, in any case → the algorithm. InvalidRequest."""
    try:
        return ChecksumAlgorithm(text.strip().upper())
    except ValueError:
        if header == "x-amz-checksum-algorithm":
            message = (
                "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
                f"[{', '.join(ChecksumAlgorithm)}]"
            )
        else:
            message = f"Value for {header} header is invalid."
        raise S3Error("InvalidRequest", message) from None


def choose_upload_checksum(
    algorithm: ChecksumAlgorithm | None, requested_type: str | None
) -> tuple[ChecksumAlgorithm | None, ChecksumType | None]:
    """The rules of CreateMultipartUpload: what was asked for → algorithm and type to keep, both None for the default.

    InvalidRequest for a type that is unknown, stands alone or does not go with the algorithm.
    """
    if algorithm is None:
        if requested_type is not None:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return None, None
    allowed = _TYPES[algorithm]
    if requested_type is None:
        return algorithm, allowed[0]
    try:
        checksum_type = ChecksumType(requested_type.strip().upper())
    except ValueError:
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.") from None
    if checksum_type not in allowed:
        raise S3Error(
            "InvalidRequest",
            f"The {checksum_type} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return algorithm, checksum_type


def _parse_header(headers: Mapping[bytes, bytes]) -> RequestedChecksum | None:
    found: RequestedChecksum | None = None
    for name, value in headers.items():
        if not name.startswith(_HEADER_PREFIX) or name in _OTHER_HEADERS:
            continue
        algorithm = _HEADERS.get(name)
        if algorithm is None:
            # Passing over a checksum that we cannot verify would store unverified bytes as if they were verified.
            raise S3Error("InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid.")
        if found is not None:
            raise S3Error("InvalidRequest", _SEVERAL)
        found = RequestedChecksum(algorithm, check_value(algorithm, value.decode("latin-1").strip()))
    return found


def _parse_announced(trailer: bytes) -> RequestedChecksum | None:
    names = [name.strip().lower() for name in trailer.split(b",") if name.strip()]
    if not all(name in _HEADERS for name in names):
        raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
    if len(names) > 1:
        raise S3Error("InvalidRequest", _SEVERAL)
    return RequestedChecksum(_HEADERS[names[0]], None, in_trailer=True) if names else None


# ------------------------------------------------------------------ of the parts of a multipart object


def combine_composite(algorithm: ChecksumAlgorithm, values: Sequence[str]) -> Checksum:
    """The checksum over the parts' digests, with the number of parts behind. values: base64, in part order."""
    hasher = new_hasher(algorithm)
    for value in values:
        hasher.update(decode_value(algorithm, value))
    return Checksum(algorithm, f"{encode_digest(hasher.digest())}-{len(values)}", ChecksumType.COMPOSITE)


def combine_full_object(algorithm: ChecksumAlgorithm, parts: Iterable[tuple[str, int]]) -> Checksum:
    """The CRC of the whole object from (base64, size in bytes) of each part, in order. ValueError for a SHA."""
    if algorithm not in _COMBINERS:
        raise ValueError(f"{algorithm} cannot be put together from its parts")
    combine = _COMBINERS[algorithm]
    whole = 0
    for value, size in parts:
        whole = combine(whole, int.from_bytes(decode_value(algorithm, value), "big"), size)
    return Checksum(algorithm, encode_digest(whole.to_bytes(DIGEST_BYTES[algorithm], "big")))


_COMBINERS: dict[ChecksumAlgorithm, Callable[[int, int, int], int]] = {
    ChecksumAlgorithm.CRC32: crt.combine_crc32,
    ChecksumAlgorithm.CRC32C: crt.combine_crc32c,
    ChecksumAlgorithm.CRC64NVME: crt.combine_crc64nvme,
}
"""(CRC of A, CRC of B, bytes of B) → CRC of A ++ B"""
