"""Request bodies: every payload mode, every proof, every way to be broken, fed as ASGI delivers them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.body import BLOCK_BYTES_MAX, BodyDigests
from s3gw.body import (
    OBJECT_BYTES_MAX,
    BodyLimits,
    RequestBody,
    open_body,
)
from s3gw.digester import BATCH_BYTES, INLINE_BYTES_MAX, Digester
from s3gw.patience import PROGRESS_BYTES, ClientDisconnected
from s3gw.protocol.checksums import encode_digest, header_name, new_hasher
from s3gw.protocol.claims import PayloadMode
from s3gw.protocol.errors import S3Error
from storage.chunks.worker_pool import WorkerPool
from storage.model import Checksum, ChecksumAlgorithm
from tests.s3gw.protocol.framing import frame_by_botocore, frame_signed, frame_unsigned, split
from tests.s3gw.protocol.signing import sign_by_header, verify

BLOCK = bytes(range(256)) * 256
UNSIGNED = PayloadMode.UNSIGNED.value
MODES = [mode for mode in PayloadMode if mode is not PayloadMode.SIGNED]


def feed(pieces: Sequence[bytes], last: dict[str, Any] | None = None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """receive() over these pieces; `last` in place of the end of the body."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append(last or {"type": "http.request", "body": b"", "more_body": False})
    remaining = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(remaining)

    return receive


def opened(
    data: bytes,
    headers: dict[str, str] | None = None,
    payload: str | None = UNSIGNED,
    pieces: Sequence[bytes] | None = None,
    algorithm: ChecksumAlgorithm | None = None,
    last: dict[str, Any] | None = None,
) -> RequestBody:
    """A body of these headers over a really signed request. payload None: the digest of `data`."""
    sent = {"content-length": str(len(data)), **(headers or {})}
    request = sign_by_header("PUT", "/b/k", sent, body=data, payload=payload)
    receive = feed([data] if pieces is None else pieces, last)
    return open_body(receive, request.headers, verify(request), algorithm)


def opened_streaming(
    mode: PayloadMode, data: bytes, chunks: Sequence[bytes], cuts: Sequence[int] = (), checksum: str | None = None
) -> RequestBody:
    """A framed body in any streaming mode; with a trailer in the modes that have one."""
    value = checksum or encode_digest(crc32(data))
    headers = {"x-amz-decoded-content-length": str(len(data)), "content-encoding": "aws-chunked"}
    with_trailer = mode is not PayloadMode.STREAMING_SIGNED
    if with_trailer:
        headers["x-amz-trailer"] = "x-amz-checksum-crc32"
    request = sign_by_header("PUT", "/b/k", headers, payload=mode.value)
    verified = verify(request)
    if mode is PayloadMode.STREAMING_UNSIGNED_TRAILER:
        framed = frame_unsigned(chunks, f"x-amz-checksum-crc32:{value}\r\n".encode())
    else:
        framed = frame_signed(verified, chunks, ("x-amz-checksum-crc32", value) if with_trailer else None)
    return open_body(feed(split(framed, cuts)), request.headers, verified)


def crc32(data: bytes) -> bytes:
    """The digest behind x-amz-checksum-crc32."""
    hasher = new_hasher(ChecksumAlgorithm.CRC32)
    hasher.update(data)
    return hasher.digest()


def checksum_of(algorithm: ChecksumAlgorithm, data: bytes) -> str:
    """The value of a checksum header."""
    hasher = new_hasher(algorithm)
    hasher.update(data)
    return encode_digest(hasher.digest())


def content_md5(data: bytes) -> str:
    """The value of Content-MD5."""
    return base64.b64encode(hashlib.md5(data).digest()).decode()


async def drain(body: RequestBody) -> tuple[bytes, BodyDigests]:
    """All blocks and the outcome; every block keeps the contract."""
    blocks = [block async for block in body]
    assert all(1 <= len(block) <= BLOCK_BYTES_MAX and not isinstance(block, bytearray) for block in blocks)
    return b"".join(blocks), await body.finish()


async def refusal(body: RequestBody) -> S3Error:
    """What reading and finishing the body raises."""
    with pytest.raises(S3Error) as refused:
        await drain(body)
    return refused.value


@pytest.mark.parametrize("payload", [None, UNSIGNED])
@pytest.mark.parametrize("size", [0, 1, 1000, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, BATCH_BYTES * 5 + 7])
async def test_plain_bodies(payload: str | None, size: int) -> None:
    """Small and large bodies arrive whole, with MD5 and the default checksum."""
    data = (BLOCK * (size // len(BLOCK) + 1))[:size]
    pieces = [data[start : start + 65536] for start in range(0, size, 65536)]
    got, digests = await drain(opened(data, payload=payload, pieces=pieces))
    assert got == data
    assert digests.md5 == hashlib.md5(data).digest()
    assert digests.checksum is not None
    assert digests.checksum.algorithm is ChecksumAlgorithm.CRC64NVME
    assert digests.checksum.value == checksum_of(ChecksumAlgorithm.CRC64NVME, data)


async def test_blocks_are_bounded() -> None:
    """A larger message than the contract's block is handed on in several."""
    data = BLOCK * 40
    assert len(data) > 2 * BLOCK_BYTES_MAX
    assert (await drain(opened(data)))[0] == data


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode is not PayloadMode.UNSIGNED])
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=4), cuts=st.lists(st.integers(0, 3000), max_size=6)
)
def test_streaming_modes(mode: PayloadMode, chunks: list[bytes], cuts: list[int]) -> None:
    """Whatever the framing and the pieces, the plaintext and its digests come out."""
    data = b"".join(chunks)
    got, digests = asyncio.run(drain(opened_streaming(mode, data, chunks, cuts)))
    assert got == data
    assert digests.md5 == hashlib.md5(data).digest()
    assert digests.checksum is not None
    has_trailer = mode is not PayloadMode.STREAMING_SIGNED
    assert digests.checksum.algorithm is (ChecksumAlgorithm.CRC32 if has_trailer else ChecksumAlgorithm.CRC64NVME)


async def test_large_signed_stream() -> None:
    """Chunks of 64 KiB, verified in threads, in pieces that cut across them."""
    data = BLOCK * 40
    chunks = [data[start : start + 65536] for start in range(0, len(data), 65536)]
    cuts = list(range(0, len(data), 100_001))
    got, _ = await drain(opened_streaming(PayloadMode.STREAMING_SIGNED_TRAILER, data, chunks, cuts))
    assert got == data


async def test_body_of_boto3_over_https() -> None:
    """The wrapper of boto3's own making: framing off, trailer verified."""
    data = BLOCK * 20
    headers = {"x-amz-decoded-content-length": str(len(data)), "x-amz-trailer": "x-amz-checksum-crc32"}
    mode = PayloadMode.STREAMING_UNSIGNED_TRAILER.value
    request = sign_by_header("PUT", "/b/k", headers, payload=mode)
    body = open_body(feed([frame_by_botocore(data)]), request.headers, verify(request))
    assert (await drain(body))[0] == data


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
@pytest.mark.parametrize("payload", [None, UNSIGNED])
async def test_checksum_headers_are_verified(algorithm: ChecksumAlgorithm, payload: str | None) -> None:
    """Each algorithm's header is held to the bytes, and is what is stored."""
    value = checksum_of(algorithm, b"data")
    body = opened(b"data", {header_name(algorithm): value}, payload)
    assert body.proves_itself
    _, digests = await drain(body)
    assert digests.checksum is not None
    assert (digests.checksum.algorithm, digests.checksum.value) == (algorithm, value)
    refused = await refusal(opened(b"data", {header_name(algorithm): checksum_of(algorithm, b"x")}, payload))
    assert refused.code == "BadDigest"
    assert refused.message == f"The {algorithm} you specified did not match the calculated checksum."


@pytest.mark.parametrize("mode", [PayloadMode.STREAMING_SIGNED_TRAILER, PayloadMode.STREAMING_UNSIGNED_TRAILER])
async def test_checksum_trailers_are_verified(mode: PayloadMode) -> None:
    """A trailer that does not match is BadDigest, and so is a malformed one."""
    wrong = checksum_of(ChecksumAlgorithm.CRC32, b"x")
    assert (await refusal(opened_streaming(mode, b"data", [b"data"], checksum=wrong))).code == "BadDigest"
    malformed = await refusal(opened_streaming(mode, b"data", [b"data"], checksum="AAAA"))
    assert (malformed.code, "trailing header is invalid" in malformed.message) == ("BadDigest", True)


@pytest.mark.parametrize("trailer", [b"", b"x-amz-checksum-sha1:AAAA\r\n", b"x-amz-checksum-crc32:A\r\nx-a:b\r\n"])
async def test_trailers_are_what_was_announced(trailer: bytes) -> None:
    """A missing, another or a further trailer is malformed."""
    headers = {"x-amz-decoded-content-length": "4", "x-amz-trailer": "x-amz-checksum-crc32"}
    mode = PayloadMode.STREAMING_UNSIGNED_TRAILER.value
    request = sign_by_header("PUT", "/b/k", headers, payload=mode)
    body = open_body(feed([frame_unsigned([b"data"], trailer)]), request.headers, verify(request))
    assert (await refusal(body)).code == "MalformedTrailerError"


async def test_unannounced_trailer_is_malformed() -> None:
    """Without x-amz-trailer the body must not bring one."""
    request = sign_by_header(
        "PUT",
        "/b/k",
        {"x-amz-decoded-content-length": "4"},
        payload=PayloadMode.STREAMING_UNSIGNED_TRAILER.value,
    )
    framed = frame_unsigned([b"data"], b"x-amz-checksum-crc32:AAAAAA==\r\n")
    body = open_body(feed([framed]), request.headers, verify(request))
    assert (await refusal(body)).code == "MalformedTrailerError"


async def test_algorithm_of_an_upload_is_computed() -> None:
    """Where the client sends none, the algorithm that the caller names is computed."""
    _, digests = await drain(opened(b"data", algorithm=ChecksumAlgorithm.SHA1))
    assert digests.checksum is not None
    assert digests.checksum.value == checksum_of(ChecksumAlgorithm.SHA1, b"data")


async def test_the_checksum_kept_need_not_be_the_clients() -> None:
    """What was sent is verified and told back, what was asked for is kept."""
    kept, value = ChecksumAlgorithm.CRC64NVME, checksum_of(ChecksumAlgorithm.SHA256, b"data")
    body = opened(b"data", {"x-amz-checksum-sha256": value}, payload=None, algorithm=kept)
    assert body.confirmed is None
    _, digests = await drain(body)
    assert (body.confirmed, digests.checksum) == (
        Checksum(ChecksumAlgorithm.SHA256, value),
        Checksum(kept, checksum_of(kept, b"data")),
    )
    wrong = opened(b"dat4", {"x-amz-checksum-sha256": value}, algorithm=kept)
    assert (await refusal(wrong)).code == "BadDigest" and wrong.confirmed is None


async def test_content_md5_is_verified() -> None:
    """A right one passes and proves the body, a wrong one is BadDigest."""
    body = opened(b"data", {"content-md5": content_md5(b"data")})
    assert body.proves_itself
    await drain(body)
    refused = await refusal(opened(b"data", {"content-md5": content_md5(b"x")}))
    assert (refused.code, refused.extra["ExpectedDigest"]) == ("BadDigest", content_md5(b"x"))
    assert not opened(b"data").proves_itself


@pytest.mark.parametrize("value", ["", "x", "AAAA", "YWJj=", content_md5(b"") + "AAAA", content_md5(b"")[:-1]])
def test_malformed_content_md5(value: str) -> None:
    """What is no base64 of 16 bytes is InvalidDigest, before anything is read."""
    with pytest.raises(S3Error, match="InvalidDigest"):
        opened(b"data", {"content-md5": value})


async def test_signed_payload_is_verified() -> None:
    """Other bytes than the signed ones are refused, whichever hasher is shared."""
    digest = hashlib.sha256(b"data").hexdigest()
    for headers in ({}, {header_name(ChecksumAlgorithm.SHA256): checksum_of(ChecksumAlgorithm.SHA256, b"fake")}):
        refused = await refusal(opened(b"fake", headers, payload=digest))
        assert (refused.code, refused.status) == ("XAmzContentSHA256Mismatch", 400)
        assert refused.extra["ClientComputedContentSHA256"] == digest


@pytest.mark.parametrize("size", [100, BATCH_BYTES * 3])
async def test_changed_chunk_is_refused(size: int) -> None:
    """A chunk whose data does not fit its signature ends the body, in place or in a thread."""
    data = bytes(size)
    headers = {"x-amz-decoded-content-length": str(size)}
    request = sign_by_header("PUT", "/b/k", headers, payload=PayloadMode.STREAMING_SIGNED.value)
    verified = verify(request)
    framed = frame_signed(verified, [data[:50], data[50:]])
    changed = framed.replace(bytes(50), b"\x01" + bytes(49), 1)
    assert changed != framed
    pieces = [changed[start : start + 65536] for start in range(0, len(changed), 65536)]
    assert (await refusal(open_body(feed(pieces), request.headers, verified))).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(("announced", "sent"), [(5, 4), (4, 5), (1, 0), (0, 1)])
async def test_other_length_is_incomplete(announced: int, sent: int) -> None:
    """Fewer or more bytes than announced."""
    body = opened(b"x" * sent, {"content-length": str(announced)})
    assert body.length == announced
    assert (await refusal(body)).code == "IncompleteBody"


async def test_disconnect_is_not_an_answer() -> None:
    """A client that goes away raises its own exception."""
    with pytest.raises(ClientDisconnected):
        await drain(opened(b"data", last={"type": "http.disconnect"}))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "MissingContentLength"),
        ({"transfer-encoding": "chunked"}, "NotImplemented"),
        ({"content-length": "-1"}, "InvalidArgument"),
        ({"content-length": "1e3"}, "InvalidArgument"),
        ({"content-length": "٣"}, "InvalidArgument"),
        ({"content-length": "9" * 30}, "InvalidArgument"),
        ({"content-length": str(OBJECT_BYTES_MAX + 1)}, "EntityTooLarge"),
        ({"content-length": "9", "x-amz-decoded-content-length": "4"}, "InvalidRequest"),
        ({"content-length": "9", "x-amz-trailer": "x-amz-checksum-crc32"}, "InvalidRequest"),
        ({"content-length": "9", "x-amz-checksum-crc32": "A"}, "BadDigest"),
    ],
)
def test_headers_are_judged_first(headers: dict[str, str], code: str) -> None:
    """What the headers show to be wrong is refused before the body is asked for."""
    verified = verify(sign_by_header("PUT", "/b/k", payload=UNSIGNED))
    encoded = {name.encode(): value.encode() for name, value in headers.items()}
    with pytest.raises(S3Error) as refused:
        open_body(feed([]), encoded, verified)
    assert refused.value.code == code


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode is not PayloadMode.UNSIGNED])
def test_streaming_needs_the_decoded_length(mode: PayloadMode) -> None:
    """The framing's own length is not the object's."""
    verified = verify(sign_by_header("PUT", "/b/k", payload=mode.value))
    with pytest.raises(S3Error, match="MissingContentLength"):
        open_body(feed([]), {b"content-length": b"100"}, verified)
    too_much = {b"x-amz-decoded-content-length": str(OBJECT_BYTES_MAX + 1).encode()}
    with pytest.raises(S3Error, match="EntityTooLarge"):
        open_body(feed([]), too_much, verified)


def test_signed_stream_without_trailer_announces_none() -> None:
    """A trailer announced in a mode that has none is a contradiction."""
    verified = verify(sign_by_header("PUT", "/b/k", payload=PayloadMode.STREAMING_SIGNED.value))
    headers = {b"x-amz-decoded-content-length": b"4", b"x-amz-trailer": b"x-amz-checksum-crc32"}
    with pytest.raises(S3Error, match="InvalidRequest"):
        open_body(feed([]), headers, verified)


async def test_length_may_be_left_out_where_the_caller_says() -> None:
    """CreateBucket comes without a body and without a length."""
    verified = verify(sign_by_header("PUT", "/b", payload=UNSIGNED))
    body = open_body(feed([]), {}, verified, length_required=False)
    assert await body.read_small_body(10) == b""


async def test_small_bodies_are_read_whole_and_verified() -> None:
    """read_small_body gives the bytes, refuses longer ones unread, and verifies as ever."""
    assert await opened(b"<a/>", pieces=[b"<", b"a/>"]).read_small_body(4) == b"<a/>"
    with pytest.raises(S3Error, match="MaxMessageLengthExceeded"):
        await opened(b"<a/> ").read_small_body(4)
    with pytest.raises(S3Error, match="BadDigest"):
        await opened(b"<a/>", {"content-md5": content_md5(b"x")}).read_small_body(4)


async def test_finish_comes_after_the_last_block() -> None:
    """Finishing an unread body is a mistake of the program."""
    with pytest.raises(RuntimeError):
        await opened(b"data").finish()


class Trickle:
    """receive() that hands out `piece` only when the loop has nothing else to do, `delay_s` apart."""

    def __init__(self, piece: bytes, delay_s: float) -> None:
        self._piece = piece
        self._delay_s = delay_s

    async def receive(self) -> dict[str, Any]:
        await asyncio.sleep(self._delay_s)
        return {"type": "http.request", "body": self._piece, "more_body": True}


@pytest.mark.parametrize(("piece", "delay_s"), [(b"", 60.0), (b"x", 0.02), (b"", 0.02)])
async def test_slow_clients_are_told(piece: bytes, delay_s: float) -> None:
    """Silence and a trickle of bytes both end in RequestTimeout."""
    verified = verify(sign_by_header("PUT", "/b/k", payload=UNSIGNED))
    limits = BodyLimits(patience_s=0.1)
    headers = {b"content-length": b"1000000"}
    body = open_body(Trickle(piece, delay_s).receive, headers, verified, limits=limits)
    refused = await refusal(body)
    assert (refused.code, refused.status) == ("RequestTimeout", 400)


async def test_progress_renews_the_patience() -> None:
    """A client that moves on is waited for, however long the whole takes."""
    verified = verify(sign_by_header("PUT", "/b/k", payload=UNSIGNED))
    count = 30
    limits = BodyLimits(patience_s=0.4)
    headers = {b"content-length": str(count * PROGRESS_BYTES).encode()}
    messages = iter([*[bytes(PROGRESS_BYTES)] * count, b""])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.02)
        piece = next(messages)
        return {"type": "http.request", "body": piece, "more_body": piece != b""}

    got, _ = await drain(open_body(receive, headers, verified, limits=limits))
    assert len(got) == count * PROGRESS_BYTES


async def test_large_blocks_are_hashed_in_threads() -> None:
    """Large amounts leave the loop's thread, small ones stay, and the order is kept."""
    seen: list[tuple[int, int]] = []

    class Watching:
        def update(self, data: bytes | memoryview, /) -> None:
            seen.append((data[0], threading.get_ident()))

        def digest(self) -> bytes:
            return b""

    pool = WorkerPool(1, "test")
    digester = Digester([Watching()], pool=pool)
    for number in range(8):
        await digester.add(bytes([number]) * (BATCH_BYTES // 2))
    await digester.finish()
    assert [number for number, _ in seen] == list(range(8))
    assert threading.get_ident() not in {thread for _, thread in seen}
    seen.clear()
    digester = Digester([Watching()], pool=pool)
    await digester.add(b"a" * INLINE_BYTES_MAX)
    await digester.finish()
    assert seen == [(ord("a"), threading.get_ident())]
    pool.close()


@settings(max_examples=50)
@given(garbage=st.lists(st.binary(max_size=100), max_size=4), mode=st.sampled_from(MODES), length=st.integers(0, 200))
def test_garbage_ends_in_a_refusal_or_the_declared_bytes(garbage: list[bytes], mode: PayloadMode, length: int) -> None:
    """Random bytes in any mode are either exactly the declared number of them, or an S3Error."""
    headers = {"content-length": str(length)}
    if mode is not PayloadMode.UNSIGNED:
        headers["x-amz-decoded-content-length"] = str(length)
    request = sign_by_header("PUT", "/b/k", headers, payload=mode.value)
    body = open_body(feed(garbage), request.headers, verify(request))
    try:
        got, _ = asyncio.run(drain(body))
    except S3Error:
        return
    assert len(got) == length
