"""aws-chunked: the documented vectors, any split of the input, and every fault of the framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.aws_chunked import (
    CHUNK_HEADER_BYTES_MAX,
    TRAILER_BYTES_MAX,
    ChunkDecoder,
    ChunkEnd,
    ChunkVerifier,
    Trailers,
)
from s3gw.protocol.claims import Claim, PayloadMode
from s3gw.protocol.errors import S3Error
from s3gw.protocol.sigv4 import Verified, derive_signing_key
from tests.s3gw.protocol.framing import frame_by_botocore, frame_signed, frame_unsigned, split
from tests.s3gw.protocol.signing import SECRET_ACCESS_KEY, sign_by_header, verify

CUTS = st.lists(st.integers(0, 10_000), max_size=8)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
CRC_TRAILER = ("x-amz-checksum-crc32", "AAAAAA==")


def documented(seed_signature: str) -> Verified:
    """A request of the documentation's streaming examples, of which only the seed signature differs."""
    claim = Claim(
        "AKIAIOSFODNN7EXAMPLE",
        "20130524",
        "us-east-1",
        "20130524T000000Z",
        0.0,
        ("host",),
        seed_signature,
        PayloadMode.STREAMING_SIGNED.value,
        PayloadMode.STREAMING_SIGNED,
    )
    return Verified(claim, derive_signing_key(SECRET_ACCESS_KEY, "20130524", "us-east-1"))


def signed_request(mode: PayloadMode = PayloadMode.STREAMING_SIGNED) -> Verified:
    """A real request to go on from."""
    return verify(sign_by_header("PUT", "/b/k", payload=mode.value))


def decode(
    pieces: list[bytes], length: int, verified: Verified | None = None, *, trailer: bool = False
) -> tuple[bytes, Trailers]:
    """Feed the pieces, verify where there is a signer, finish."""
    decoder = ChunkDecoder(length, signed=verified is not None, trailer=trailer)
    verifier = ChunkVerifier(verified) if verified else None
    plain = b""
    for piece in pieces:
        for item in decoder.feed(piece):
            if isinstance(item, ChunkEnd):
                assert verifier is not None
                verifier.end_chunk(item.signature)
                continue
            plain += item
            if verifier is not None:
                verifier.update(item)
    trailers = decoder.finish()
    if verifier is not None and trailer:
        verifier.verify_trailers(trailers)
    return plain, trailers


def refusal(framed: bytes, length: int, verified: Verified | None = None, *, trailer: bool = False) -> str:
    """The code that decoding raises; the same in one piece and byte by byte."""
    codes = set()
    for pieces in ([framed], [framed[place : place + 1] for place in range(len(framed))]):
        with pytest.raises(S3Error) as refused:
            decode(pieces, length, verified, trailer=trailer)
        codes.add(refused.value.code)
    assert len(codes) == 1
    return codes.pop()


def test_documented_chunk_signatures() -> None:
    """64 KiB and 1 KiB of `a` and the final chunk, as the documentation signs them."""
    signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]
    framed = b""
    for size, signature in zip((65536, 1024, 0), signatures, strict=True):
        framed += f"{size:x};chunk-signature={signature}\r\n".encode() + b"a" * size + b"\r\n"
    verified = documented("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9")
    assert decode([framed], 66560, verified) == (b"a" * 66560, Trailers({}))


def test_documented_trailer_signature() -> None:
    """The documentation's example with a CRC32C trailer."""
    signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ]
    framed = b""
    for size, signature in zip((65536, 1024, 0), signatures, strict=True):
        framed += f"{size:x};chunk-signature={signature}\r\n".encode() + b"a" * size + (b"\r\n" if size else b"")
    framed += (
        b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
        b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
    )
    verified = documented("106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")
    _, trailers = decode([framed], 66560, verified, trailer=True)
    assert trailers.fields == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@given(chunks=CHUNKS, cuts=CUTS)
def test_unsigned_in_any_pieces(chunks: list[bytes], cuts: list[int]) -> None:
    """However the input is cut, the plaintext and the trailer are the same."""
    data = b"".join(chunks)
    framed = frame_unsigned(chunks, b"x-amz-checksum-crc32:AAAAAA==\r\n")
    assert decode(split(framed, cuts), len(data), trailer=True) == (data, Trailers({CRC_TRAILER[0]: CRC_TRAILER[1]}))


@given(data=st.binary(max_size=300), chunk_bytes=st.integers(1, 400), cuts=CUTS)
def test_bodies_of_botocore(data: bytes, chunk_bytes: int, cuts: list[int]) -> None:
    """What boto3 frames is decoded, its checksum trailer included."""
    plain, trailers = decode(split(frame_by_botocore(data, chunk_bytes), cuts), len(data), trailer=True)
    assert plain == data
    assert list(trailers.fields) == ["x-amz-checksum-crc32"]


@given(chunks=CHUNKS, cuts=CUTS, with_trailer=st.booleans())
def test_signed_in_any_pieces(chunks: list[bytes], cuts: list[int], with_trailer: bool) -> None:
    """Every chunk and the trailer verify, however the input is cut."""
    verified = signed_request()
    framed = frame_signed(verified, chunks, CRC_TRAILER if with_trailer else None)
    data = b"".join(chunks)
    plain, trailers = decode(split(framed, cuts), len(data), verified, trailer=with_trailer)
    assert plain == data
    assert (trailers.signature is not None) is with_trailer


@given(chunks=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=3), where=st.integers(0, 10_000))
def test_no_changed_byte_passes(chunks: list[bytes], where: int) -> None:
    """A changed bit anywhere in a signed body is a refusal, whatever it hits."""
    verified = signed_request()
    framed = bytearray(frame_signed(verified, chunks, CRC_TRAILER))
    framed[where % len(framed)] ^= 1
    with pytest.raises(S3Error) as refused:
        decode([bytes(framed)], len(b"".join(chunks)), verified, trailer=True)
    assert refused.value.code in {"SignatureDoesNotMatch", "IncompleteBody", "MalformedTrailerError"}


def test_chunks_cannot_be_reordered_or_dropped() -> None:
    """The chain of signatures holds the order."""
    verified = signed_request()
    framed = frame_signed(verified, [b"one", b"two"])
    first, second = framed[: framed.index(b"one") + 5], framed[framed.index(b"one") + 5 : framed.index(b"two") + 5]
    rest = framed[len(first) + len(second) :]
    assert refusal(second + first + rest, 6, verified) == "SignatureDoesNotMatch"
    assert refusal(first + rest, 3, verified) == "SignatureDoesNotMatch"


def test_empty_body() -> None:
    """An object of no bytes still has its framing."""
    verified = signed_request()
    assert decode([frame_signed(verified, [])], 0, verified)[0] == b""
    assert decode([b"0\r\n\r\n"], 0, trailer=True) == (b"", Trailers({}))


def test_one_chunk_may_be_the_whole_stream() -> None:
    """A chunk of any size within the declared length is passed on as it comes."""
    decoder = ChunkDecoder(5 << 30, signed=False, trailer=True)
    decoder.feed(b"%x\r\n" % (5 << 30))
    block = bytes(1 << 16)
    (view,) = decoder.feed(block)
    assert isinstance(view, memoryview)
    assert view.obj is block


@pytest.mark.parametrize(
    ("framed", "length"),
    [
        (b"", 0),
        (b"0\r\n", 0),
        (b"0\r\n\r", 0),
        (b"0\r\nX", 0),
        (b"3\r\nabc\r\n", 3),
        (b"3\r\nabc\r\n0\r\n\r\n", 4),
        (b"3\r\nabc\r\n0\r\n\r\n", 2),
        (b"3\r\nabcd\r\n0\r\n\r\n", 3),
        (b"4\r\nabc\r\n0\r\n\r\n", 4),
        (b"3\nabc\r\n0\r\n\r\n", 3),
        (b"3\r\nabc\n0\r\n\r\n", 3),
        (b"\r\n", 0),
        (b"-1\r\n\r\n", 0),
        (b"0x3\r\nabc\r\n0\r\n\r\n", 3),
        (b" 3\r\nabc\r\n0\r\n\r\n", 3),
        (b"3;a=b\r\nabc\r\n0\r\n\r\n", 3),
        (b"3;chunk-signature=" + b"a" * 64 + b"\r\nabc\r\n0\r\n\r\n", 3),
        (b"1" + b"0" * 16 + b"\r\n", 3),
        (b"3" * (CHUNK_HEADER_BYTES_MAX + 1), 3),
        (b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n", 0),
        (b"0\r\nx-amz-checksum-crc32:AAAAAA==", 0),
    ],
)
def test_broken_framing_is_incomplete_body(framed: bytes, length: int) -> None:
    """AWS gives one code for every fault of the framing."""
    assert refusal(framed, length, trailer=True) == "IncompleteBody"


def test_signed_bodies_need_signatures() -> None:
    """A chunk without a signature, or of another form, does not pass for a signed one."""
    verified = signed_request()
    assert refusal(b"3\r\nabc\r\n0\r\n\r\n", 3, verified) == "IncompleteBody"
    assert refusal(b"3;chunk-signature=" + b"A" * 64 + b"\r\nabc\r\n", 3, verified) == "IncompleteBody"
    assert refusal(b"3;chunk-signature=" + b"a" * 64 + b"\r\nabc\r\n", 3, verified) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    "trailer",
    [
        b"no colon\r\n",
        b":novalue\r\n",
        b"a b:c\r\n",
        b"a:b\r\na:c\r\n",
        b"a:b\r\nA:c\r\n",
        b"a:\x00\r\n",
        b"a:\xff\r\n",
        b"".join(b"a%d:b\r\n" % number for number in range(9)),
        b"a:" + b"b" * TRAILER_BYTES_MAX + b"\r\n",
    ],
)
def test_malformed_trailers(trailer: bytes) -> None:
    """Trailers that are no fields, repeated, too many or too long."""
    assert refusal(frame_unsigned([b"abc"], trailer), 3, trailer=True) == "MalformedTrailerError"


def test_trailer_where_none_belongs() -> None:
    """A mode without trailers accepts none."""
    verified = signed_request()
    assert refusal(frame_signed(verified, [b"abc"], CRC_TRAILER), 3, verified) == "MalformedTrailerError"


def test_trailer_signature_is_required_and_last() -> None:
    """A signed trailer without its signature, or with something behind it, is malformed."""
    verified = signed_request()
    framed = frame_signed(verified, [b"abc"], CRC_TRAILER)
    start = framed.index(b"x-amz-trailer-signature")
    assert refusal(framed[:start] + b"\r\n", 3, verified, trailer=True) == "MalformedTrailerError"
    assert refusal(framed[:-2] + b"a:b\r\n\r\n", 3, verified, trailer=True) == "MalformedTrailerError"
    other = framed.replace(b"AAAAAA==", b"BAAAAA==")
    assert refusal(other, 3, verified, trailer=True) == "SignatureDoesNotMatch"


def test_trailer_lines_may_end_in_a_bare_line_feed() -> None:
    """As some clients write them, with a blank line before the signature."""
    verified = signed_request()
    framed = frame_signed(verified, [b"abc"], CRC_TRAILER).replace(b"AAAAAA==\r\n", b"AAAAAA==\n\r\n")
    assert decode([framed], 3, verified, trailer=True)[0] == b"abc"


@given(st.binary(max_size=200), st.integers(0, 50), st.booleans(), CUTS)
def test_garbage_is_refused_by_name(garbage: bytes, length: int, signed: bool, cuts: list[int]) -> None:
    """Random input never raises anything but S3Error, and never yields more than was declared."""
    verified = signed_request() if signed else None
    try:
        plain, _ = decode(split(garbage, cuts), length, verified, trailer=True)
    except S3Error:
        return
    assert len(plain) == length
