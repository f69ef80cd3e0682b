"""The other side of aws-chunked for tests: bodies framed and signed as clients do."""

from __future__ import annotations

import hashlib
import hmac
import io
from collections.abc import Sequence

from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum

from s3gw.protocol.sigv4 import Verified

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def frame_unsigned(chunks: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """`<size> CRLF <data> CRLF` for each chunk, then a size of 0, the trailer lines and a blank line."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return framed + b"0\r\n" + trailer + b"\r\n"


def frame_by_botocore(data: bytes, chunk_bytes: int = 1 << 20) -> bytes:
    """What boto3 sends over https: unsigned chunks and a CRC32 trailer."""
    wrapper = AwsChunkedWrapper(io.BytesIO(data), Crc32Checksum, "x-amz-checksum-crc32", chunk_bytes)
    framed: bytes = wrapper.read()
    return framed


def frame_signed(verified: Verified, chunks: Sequence[bytes], trailer: tuple[str, str] | None = None) -> bytes:
    """Chunks signed one after another from the request's signature; with a trailer, the trailer signed as well."""
    claim, previous, framed = verified.claim, verified.claim.signature, b""
    for chunk in [*chunks, b""]:
        text = "\n".join(
            [
                "AWS4-HMAC-SHA256-PAYLOAD",
                claim.timestamp,
                claim.scope,
                previous,
                EMPTY_SHA256,
                hashlib.sha256(chunk).hexdigest(),
            ]
        )
        previous = hmac.new(verified.signing_key, text.encode(), "sha256").hexdigest()
        framed += f"{len(chunk):x};chunk-signature={previous}\r\n".encode() + chunk + (b"\r\n" if chunk else b"")
    if trailer is not None:
        line = f"{trailer[0]}:{trailer[1]}"
        digest = hashlib.sha256(f"{line}\n".encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256-TRAILER", claim.timestamp, claim.scope, previous, digest])
        signature = hmac.new(verified.signing_key, text.encode(), "sha256").hexdigest()
        framed += f"{line}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
    return framed + b"\r\n"


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places (modulo its length)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
