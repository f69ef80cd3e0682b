"""A request's body: ASGI's receive() → verified plaintext, as cluster.body.Body wants it.

    body = open_body(receive, headers, verified)     refuses what the headers already show to be wrong; nothing is read
    async for block in body: …                       the client gets its 100 Continue at the first receive()
    digests = await body.finish()                    or nothing of it may be committed

Every way in which a body can be broken ends in an S3Error with AWS's code, or in ClientDisconnected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

from cluster.body import BLOCK_BYTES_MAX, BodyDigests
from s3gw.digester import Digester
from s3gw.patience import PATIENCE_S, ClientDisconnected, PatientReceiver, Receive
from s3gw.protocol.aws_chunked import ChunkDecoder, ChunkEnd, ChunkVerifier, Trailers
from s3gw.protocol.checksums import (
    DEFAULT_ALGORITHM,
    Hasher,
    RequestedChecksum,
    check_value,
    decode_value,
    encode_digest,
    header_name,
    new_hasher,
    parse_requested_checksum,
)
from s3gw.protocol.claims import PayloadMode
from s3gw.protocol.errors import S3Error
from s3gw.protocol.sigv4 import Verified
from storage.crypto.envelope import Buffer
from storage.model import Checksum, ChecksumAlgorithm

__all__ = ["ClientDisconnected", "RequestBody", "open_body"]

OBJECT_BYTES_MAX = 5 << 30
"""of one PUT or one part, as on AWS"""

_SIGNED_CHUNKS = frozenset({PayloadMode.STREAMING_SIGNED, PayloadMode.STREAMING_SIGNED_TRAILER})
_WITH_TRAILER = frozenset({PayloadMode.STREAMING_SIGNED_TRAILER, PayloadMode.STREAMING_UNSIGNED_TRAILER})


class BodyLimits(NamedTuple):
    """What bounds a body."""

    length_max: int = OBJECT_BYTES_MAX
    patience_s: float = PATIENCE_S


DEFAULT_LIMITS = BodyLimits()


def open_body(
    receive: Receive,
    headers: Mapping[bytes, bytes],
    verified: Verified,
    algorithm: ChecksumAlgorithm | None = None,
    *,
    limits: BodyLimits = DEFAULT_LIMITS,
    length_required: bool = True,
) -> RequestBody:
    """Judge the headers and get ready to read.

    headers: one value a name (claims.join_headers). algorithm: of the checksum to keep (None: of the client's own, else
    CRC64NVME); what the client sends is verified whatever is kept. length_required: False for operations whose body may
    be left out with its Content-Length.
    S3Error: MissingContentLength, EntityTooLarge, InvalidDigest, InvalidRequest, InvalidArgument, NotImplemented.
    """
    mode = verified.claim.payload_mode
    streaming = mode in _SIGNED_CHUNKS or mode in _WITH_TRAILER
    length = _parse_decoded_length(headers) if streaming else _parse_length(headers, length_required)
    if length > limits.length_max:
        raise S3Error("EntityTooLarge", ProposedSize=str(length), MaxSizeAllowed=str(limits.length_max))
    requested = parse_requested_checksum(headers)
    announces_framing = b"x-amz-decoded-content-length" in headers or (requested is not None and requested.in_trailer)
    if (announces_framing and not streaming) or (requested and requested.in_trailer and mode not in _WITH_TRAILER):
        # Such a body would be framed, and the framing would end up inside the object.
        raise S3Error("InvalidRequest", "x-amz-content-sha256 does not announce the aws-chunked body of this request.")
    return RequestBody(
        receive,
        length,
        verified,
        content_md5=parse_content_md5(headers),
        requested=requested,
        algorithm=algorithm or (requested.algorithm if requested else DEFAULT_ALGORITHM),
        decoder=_new_decoder(mode, length) if streaming else None,
        patience_s=limits.patience_s,
    )


class RequestBody:
    """Implements cluster.body.Body. Iterated once, then finish()ed."""

    def __init__(
        self,
        receive: Receive,
        length: int,
        verified: Verified,
        *,
        content_md5: bytes | None,
        requested: RequestedChecksum | None,
        algorithm: ChecksumAlgorithm,
        decoder: ChunkDecoder | None,
        patience_s: float,
    ) -> None:
        self.length = length
        self.requested = requested
        """the checksum that the client sends, None when it sends none"""
        self.confirmed: Checksum | None = None
        """the same, computed, once finish() has found it right"""
        self._receiver = PatientReceiver(receive, patience_s)
        self._claim = verified.claim
        self._content_md5 = content_md5
        self._algorithm = requested.algorithm if requested else algorithm
        self._kept_algorithm = algorithm
        self._decoder = decoder
        self._received_bytes = 0
        self._ended = False
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._checksum = self._kept = new_hasher(self._algorithm)
        hashers: list[Hasher] = [self._md5, self._checksum]
        if self._algorithm is not algorithm:
            self._kept = new_hasher(algorithm)
            hashers.append(self._kept)
        self._sha256: Hasher | None = None
        if self._claim.payload_mode is PayloadMode.SIGNED:
            if self._algorithm is ChecksumAlgorithm.SHA256:
                self._sha256 = self._checksum
            else:
                self._sha256 = hashlib.sha256()
                hashers.append(self._sha256)
        self._verifier = ChunkVerifier(verified) if self._claim.payload_mode in _SIGNED_CHUNKS else None
        self._digester = Digester(hashers, self._verifier)

    @property
    def proves_itself(self) -> bool:
        """Whether the client sent a Content-MD5 or a checksum, which DeleteObjects and some settings require."""
        return self._content_md5 is not None or self.requested is not None

    def __aiter__(self) -> AsyncIterator[Buffer]:
        return self._blocks()

    async def read_small_body(self, bytes_max: int) -> bytes:
        """The whole verified body of at most bytes_max. MaxMessageLengthExceeded, before anything is read."""
        if self.length > bytes_max:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=str(bytes_max))
        blocks = [block async for block in self]
        await self.finish()
        return b"".join(blocks)

    async def finish(self) -> BodyDigests:
        """Verify length, last signature, trailers, SHA-256, MD5 and checksum, in this order."""
        if not self._ended:
            raise RuntimeError("a body is finished after its last block")
        if self._received_bytes != self.length:
            raise S3Error("IncompleteBody")
        trailers = self._decoder.finish() if self._decoder is not None else None
        await self._digester.finish()
        expected = self.requested.value if self.requested is not None else None
        if trailers is not None and self._claim.payload_mode in _WITH_TRAILER:
            if self._verifier is not None:
                self._verifier.verify_trailers(trailers)
            expected = self._checksum_of(trailers) or expected
        self._check_sha256()
        md5 = self._md5.digest()
        check_md5(self._content_md5, md5)
        digest = self._checksum.digest()
        check_checksum(self._algorithm, expected, digest)
        checksum = Checksum(self._algorithm, encode_digest(digest))
        if self.requested is not None:
            self.confirmed = checksum
        if self._kept is not self._checksum:
            checksum = Checksum(self._kept_algorithm, encode_digest(self._kept.digest()))
        return BodyDigests(md5, checksum)

    async def _blocks(self) -> AsyncIterator[Buffer]:
        while not self._ended:
            received, self._ended = await self._receiver.next_bytes()
            data: Buffer = received
            pieces: list[memoryview | ChunkEnd] = []
            if self._decoder is not None:
                pieces = self._decoder.feed(received)
                plain = [piece for piece in pieces if not isinstance(piece, ChunkEnd)]
                data = plain[0] if len(plain) == 1 else b"".join(plain)
            self._received_bytes += len(data)
            if self._received_bytes > self.length:
                raise S3Error("IncompleteBody")
            if data or pieces:
                await self._digester.add(data, pieces)
            if len(data) <= BLOCK_BYTES_MAX:
                if data:
                    yield data
                continue
            for start in range(0, len(data), BLOCK_BYTES_MAX):
                yield data[start : start + BLOCK_BYTES_MAX]

    def _checksum_of(self, trailers: Trailers) -> str | None:
        """The announced checksum; exactly what was announced has to be there. MalformedTrailerError, InvalidRequest."""
        in_trailer = self.requested is not None and self.requested.in_trailer
        name = header_name(self._algorithm)
        if list(trailers.fields) != ([name] if in_trailer else []):
            raise S3Error("MalformedTrailerError")
        return check_value(self._algorithm, trailers.fields[name], "trailing header") if in_trailer else None

    def _check_sha256(self) -> None:
        if self._sha256 is None:
            return
        computed = self._sha256.digest().hex()
        if computed != self._claim.payload_text:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self._claim.payload_text,
                S3ComputedContentSHA256=computed,
            )


def _new_decoder(mode: PayloadMode, length: int) -> ChunkDecoder:
    return ChunkDecoder(length, signed=mode in _SIGNED_CHUNKS, trailer=mode in _WITH_TRAILER)


def _parse_length(headers: Mapping[bytes, bytes], required: bool) -> int:
    text = headers.get(b"content-length")
    if text is not None:
        return _parse_count(text, "Content-Length")
    if b"transfer-encoding" in headers:
        raise S3Error("NotImplemented", Header="Transfer-Encoding")
    if required:
        raise S3Error("MissingContentLength")
    return 0


def _parse_decoded_length(headers: Mapping[bytes, bytes]) -> int:
    text = headers.get(b"x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    return _parse_count(text, "x-amz-decoded-content-length")


def _parse_count(text: bytes, name: str) -> int:
    digits = text.strip()
    if not digits.isdigit() or len(digits) > 19:
        raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=text[:64].decode("latin-1"))
    return int(digits)


def parse_content_md5(headers: Mapping[bytes, bytes]) -> bytes | None:
    """16 bytes; InvalidDigest."""
    text = headers.get(b"content-md5")
    if text is None:
        return None
    try:
        digest = binascii.a2b_base64(text.strip(), strict_mode=True)
    except ValueError:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.") from None
    if len(digest) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return digest


def check_md5(expected: bytes | None, md5: bytes) -> None:
    """BadDigest for a body that is not what Content-MD5 says."""
    if expected is not None and md5 != expected:
        raise S3Error(
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
            ExpectedDigest=base64.b64encode(expected).decode(),
            CalculatedDigest=base64.b64encode(md5).decode(),
        )


def check_checksum(algorithm: ChecksumAlgorithm, expected: str | None, digest: bytes) -> None:
    """BadDigest for a body that is not what its checksum says."""
    if expected is not None and decode_value(algorithm, expected) != digest:
        raise S3Error("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")
