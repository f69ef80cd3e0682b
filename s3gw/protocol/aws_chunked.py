"""SANS-IO. The aws-chunked content coding: framed bytes in, plaintext and signatures to check out.

    <hex size>[;chunk-signature=<64 hex>] CRLF <data> CRLF   repeated; a size of 0 ends the data and has no data line
    [<name>:<value> CRLF …] [x-amz-trailer-signature:<64 hex> CRLF] CRLF

Decoding and verifying are apart, so that the one can go on in the event loop while the other hashes in a thread:
ChunkDecoder takes the framing off, and ChunkVerifier, fed with the pieces in order, follows the chain of signatures.

A chunk has no bound of its own: the AWS SDK for Go sends a whole unsigned stream as one chunk, and a chunk is never
held in memory. The declared length bounds the sum. Chunks below 8 KiB are accepted, which AWS refuses.

Source: Amazon S3 API Reference, "Signature calculations for the Authorization header: transferring payload in multiple
chunks" and its page on trailing headers. Every fault of the framing is IncompleteBody, as AWS answers.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple

from s3gw.protocol.errors import S3Error
from s3gw.protocol.sigv4 import Verified
from storage.crypto.envelope import Buffer

CHUNK_HEADER_BYTES_MAX = 128
"""16 hex digits and the signature have 97"""
TRAILER_BYTES_MAX = 4096
TRAILERS_MAX = 8

_CHUNK_HEADER = re.compile(rb"([0-9a-fA-F]{1,16})(?:;chunk-signature=([0-9a-f]{64}))?\r\n")
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e]*)")
_TRAILER_SIGNATURE = "x-amz-trailer-signature"
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class ChunkEnd(NamedTuple):
    """The data since the last one is a whole chunk, and this is what its signature is said to be (64 hex digits)."""

    signature: str


class Trailers(NamedTuple):
    """What follows the data. fields: by lower-case name, in the order sent, without the signature."""

    fields: dict[str, str]
    signature: str | None = None


class ChunkDecoder:
    """Takes the framing off. Feed it the body as it comes, in any pieces, then call finish() at its end."""

    def __init__(self, decoded_length: int, *, signed: bool, trailer: bool) -> None:
        """decoded_length: as x-amz-decoded-content-length says; any other sum is refused."""
        self._undelivered = decoded_length
        """bytes that chunks may still announce"""
        self._signed = signed
        self._trailer = trailer
        self._chunk_left = 0
        self._signature: str | None = None
        self._line = b""
        self._after_data = False
        self._tail: bytearray | None = None
        """what follows the chunk of size 0; None before"""

    def feed(self, data: Buffer) -> list[memoryview | ChunkEnd]:
        """The plaintext in `data`, as views of it, with a ChunkEnd behind each signed chunk. IncompleteBody."""
        pieces: list[memoryview | ChunkEnd] = []
        view = memoryview(data)
        position = 0
        while position < len(data):
            if self._tail is not None:
                self._take_tail(view[position:])
                break
            if self._chunk_left:
                piece = view[position : position + self._chunk_left]
                pieces.append(piece)
                position += len(piece)
                self._chunk_left -= len(piece)
                if not self._chunk_left:
                    self._end_chunk(pieces)
                continue
            ahead = bytes(view[position : position + CHUNK_HEADER_BYTES_MAX + 1])
            newline = ahead.find(b"\n")
            part = ahead[: newline + 1] if newline >= 0 else ahead
            self._line += part
            position += len(part)
            if len(self._line) > CHUNK_HEADER_BYTES_MAX:
                raise _incomplete()
            if newline >= 0:
                line, self._line = self._line, b""
                self._take_line(line, pieces)
        return pieces

    def finish(self) -> Trailers:
        """After the last byte: what the trailer says. IncompleteBody, MalformedTrailerError."""
        if self._tail is None:
            raise _incomplete()
        tail = bytes(self._tail)
        if not (tail == b"\r\n" or tail.endswith(b"\n\r\n")):
            raise _incomplete()
        if not self._trailer and tail != b"\r\n":
            raise S3Error("MalformedTrailerError")
        return _parse_trailers(tail, signed=self._signed)

    def _take_line(self, line: bytes, pieces: list[memoryview | ChunkEnd]) -> None:
        if self._after_data:
            if line != b"\r\n":
                raise _incomplete()
            self._after_data = False
            return
        match = _CHUNK_HEADER.fullmatch(line)
        if match is None or (match[2] is not None) is not self._signed:
            raise _incomplete()
        size = int(match[1], 16)
        if size > self._undelivered:
            raise _incomplete()
        self._signature = match[2].decode() if self._signed else None
        self._undelivered -= size
        self._chunk_left = size
        if size == 0:
            if self._undelivered:
                raise _incomplete()
            self._tail = bytearray()
            self._end_chunk(pieces)

    def _end_chunk(self, pieces: list[memoryview | ChunkEnd]) -> None:
        self._after_data = True
        if self._signature is not None:
            pieces.append(ChunkEnd(self._signature))

    def _take_tail(self, data: Buffer) -> None:
        assert self._tail is not None
        if len(self._tail) + len(data) > TRAILER_BYTES_MAX:
            raise S3Error("MalformedTrailerError")
        self._tail += data


class ChunkVerifier:
    """Follows the chain of signatures from that of the request's head. It hashes all data: work for a thread."""

    def __init__(self, verified: Verified) -> None:
        claim = verified.claim
        self._signing_key = verified.signing_key
        self._middle = f"\n{claim.timestamp}\n{claim.scope}\n"
        self._previous = claim.signature
        self._hasher = hashlib.sha256()

    def update(self, data: Buffer) -> None:
        """Some bytes of the chunk under way."""
        self._hasher.update(data)

    def end_chunk(self, signature: str) -> None:
        """Hold the chunk to its signature. SignatureDoesNotMatch."""
        self._follow("AWS4-HMAC-SHA256-PAYLOAD", f"{_EMPTY_SHA256}\n{self._hasher.hexdigest()}", signature)
        self._hasher = hashlib.sha256()

    def verify_trailers(self, trailers: Trailers) -> None:
        """Hold the trailer to its signature. SignatureDoesNotMatch; MalformedTrailerError without one."""
        if trailers.signature is None:
            raise S3Error("MalformedTrailerError")
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.fields.items())
        self._follow("AWS4-HMAC-SHA256-TRAILER", hashlib.sha256(lines.encode()).hexdigest(), trailers.signature)

    def _follow(self, algorithm: str, digests: str, signature: str) -> None:
        text = f"{algorithm}{self._middle}{self._previous}\n{digests}"
        expected = hmac.digest(self._signing_key, text.encode(), "sha256").hex()
        if not hmac.compare_digest(expected, signature):
            raise S3Error("SignatureDoesNotMatch", StringToSign=text, SignatureProvided=signature)
        self._previous = signature


def _parse_trailers(tail: bytes, *, signed: bool) -> Trailers:
    fields: dict[str, str] = {}
    signature: str | None = None
    # Some clients end a field's line with a bare LF, and put a blank line before the signature.
    for line in filter(None, (line.rstrip(b"\r") for line in tail.split(b"\n"))):
        match = _TRAILER.fullmatch(line)
        if match is None or signature is not None or len(fields) >= TRAILERS_MAX:
            raise S3Error("MalformedTrailerError")
        name, value = match[1].decode().lower(), match[2].decode().strip()
        if name == _TRAILER_SIGNATURE and signed:
            signature = value
        elif name in fields:
            raise S3Error("MalformedTrailerError")
        else:
            fields[name] = value
    return Trailers(fields, signature)


def _incomplete() -> S3Error:
    return S3Error("IncompleteBody", "The request body terminated unexpectedly")
