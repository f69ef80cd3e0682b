"""Checksums: values, headers, the rules of multipart types, and parts put together."""

from __future__ import annotations

import base64
import hashlib
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.checksums import (
    DIGEST_BYTES,
    RequestedChecksum,
    check_value,
    choose_upload_checksum,
    combine_composite,
    combine_full_object,
    decode_value,
    encode_digest,
    header_name,
    new_hasher,
    parse_algorithm,
    parse_requested_checksum,
)
from s3gw.protocol.errors import S3Error
from storage.model import ChecksumAlgorithm, ChecksumType

CRC32, CRC32C, CRC64NVME, SHA1, SHA256 = (
    ChecksumAlgorithm.CRC32,
    ChecksumAlgorithm.CRC32C,
    ChecksumAlgorithm.CRC64NVME,
    ChecksumAlgorithm.SHA1,
    ChecksumAlgorithm.SHA256,
)
FULL_OBJECT_ALGORITHMS = [CRC32, CRC32C, CRC64NVME]
CHECK_INPUT = b"123456789"
CHECK_DIGESTS = {
    CRC32: "cbf43926",
    CRC32C: "e3069283",
    CRC64NVME: "ae8b14860a799888",
    SHA1: hashlib.sha1(CHECK_INPUT).hexdigest(),
    SHA256: hashlib.sha256(CHECK_INPUT).hexdigest(),
}
"""the CRCs: the check values of the catalogue of parametrised CRC algorithms"""


def value_of(algorithm: ChecksumAlgorithm, data: bytes) -> str:
    """The checksum of data as a header has it."""
    hasher = new_hasher(algorithm)
    hasher.update(data)
    return encode_digest(hasher.digest())


def refusal(headers: dict[bytes, bytes]) -> S3Error:
    """What parsing these headers raises."""
    with pytest.raises(S3Error) as refused:
        parse_requested_checksum(headers)
    assert refused.value.code in ("InvalidRequest", "BadDigest")
    return refused.value


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
def test_check_values(algorithm: ChecksumAlgorithm) -> None:
    """Every algorithm gives its published value for `123456789`."""
    digest = decode_value(algorithm, value_of(algorithm, CHECK_INPUT))
    assert digest.hex() == CHECK_DIGESTS[algorithm]
    assert len(digest) == DIGEST_BYTES[algorithm]


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
@given(pieces=st.lists(st.binary(max_size=50), max_size=6))
def test_hashing_in_pieces(algorithm: ChecksumAlgorithm, pieces: list[bytes]) -> None:
    """Pieces of any size, views included, add up to the whole."""
    hasher = new_hasher(algorithm)
    for piece in pieces:
        hasher.update(memoryview(piece))
    assert encode_digest(hasher.digest()) == value_of(algorithm, b"".join(pieces))


@given(
    size=st.integers(0, 70_000),
    start=st.integers(0, 70),
    seed=st.integers(0, 255),
    cuts=st.lists(st.integers(0, 70_000)),
)
def test_crc32_of_large_pieces(size: int, start: int, seed: int, cuts: list[int]) -> None:
    """ISA-L takes other ways for other lengths and alignments; zlib's says the same of all of them."""
    data = memoryview((bytes(range(seed, 256)) + bytes(range(seed))) * 300)[start : start + size]
    hasher = new_hasher(CRC32)
    marks = [0, *sorted(cut % (size + 1) for cut in cuts), size]
    for first, end in pairwise(marks):
        hasher.update(data[first:end])
    assert int.from_bytes(hasher.digest(), "big") == zlib.crc32(data)


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
def test_malformed_values(algorithm: ChecksumAlgorithm) -> None:
    """A value of the wrong length or alphabet is refused with the header's name."""
    good = value_of(algorithm, b"")
    assert check_value(algorithm, good) == good
    for bad in ("", "é", "AA", good + "=", good[:-4], good + "AAAA", " " + good, "!" + good[1:], good + "\n"):
        with pytest.raises(S3Error) as refused:
            check_value(algorithm, bad)
        assert refused.value.code == "BadDigest"
        assert refused.value.message == f"Value for {header_name(algorithm)} header is invalid."


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
def test_checksum_by_header(algorithm: ChecksumAlgorithm) -> None:
    """A header brings the value; the SDK's algorithm header may name it too."""
    value = value_of(algorithm, b"x")
    headers = {header_name(algorithm).encode(): value.encode(), b"x-amz-sdk-checksum-algorithm": algorithm.encode()}
    assert parse_requested_checksum(headers) == RequestedChecksum(algorithm, value)


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
def test_checksum_by_trailer(algorithm: ChecksumAlgorithm) -> None:
    """An announced trailer brings it later."""
    headers = {b"x-amz-trailer": b" " + header_name(algorithm).upper().encode()}
    assert parse_requested_checksum(headers) == RequestedChecksum(algorithm, None, in_trailer=True)


def test_no_checksum() -> None:
    """Other headers of the family say nothing of the body."""
    headers = {b"x-amz-checksum-mode": b"ENABLED", b"x-amz-checksum-algorithm": b"CRC32", b"x-amz-checksum-type": b"X"}
    assert parse_requested_checksum(headers) is None


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ({b"x-amz-checksum-crc32": b"AAAAAA==", b"x-amz-checksum-crc32c": b"AAAAAA=="}, "Expecting a single"),
        ({b"x-amz-checksum-crc32": b"AAAAAA==", b"x-amz-trailer": b"x-amz-checksum-crc32"}, "Expecting a single"),
        ({b"x-amz-trailer": b"x-amz-checksum-crc32,x-amz-checksum-sha1"}, "Expecting a single"),
        ({b"x-amz-checksum-crc32": b"AAAAAA==,AAAAAA=="}, "Value for x-amz-checksum-crc32"),
        ({b"x-amz-checksum-sha512": b"AAAA"}, "algorithm type you specified"),
        ({b"x-amz-checksum-": b""}, "algorithm type you specified"),
        ({b"x-amz-trailer": b"x-amz-checksum-sha10"}, "x-amz-trailer header is not supported"),
        ({b"x-amz-trailer": b"x-amz-meta-a"}, "x-amz-trailer header is not supported"),
        ({b"x-amz-sdk-checksum-algorithm": b"CRC32"}, "no corresponding"),
        ({b"x-amz-sdk-checksum-algorithm": b"CRC99"}, "x-amz-sdk-checksum-algorithm header is invalid"),
        (
            {b"x-amz-checksum-crc32": b"AAAAAA==", b"x-amz-sdk-checksum-algorithm": b"SHA1"},
            "x-amz-sdk-checksum-algorithm header is invalid",
        ),
    ],
)
def test_refused_headers(headers: dict[bytes, bytes], part: str) -> None:
    """More than one checksum, an unknown one or a contradiction is InvalidRequest."""
    assert part in refusal(headers).message


@given(st.dictionaries(st.sampled_from([b"x-amz-checksum-crc32", b"x-amz-trailer", b"x-amz-checksum-a"]), st.binary()))
def test_any_header_values(headers: dict[bytes, bytes]) -> None:
    """Random values never raise anything but S3Error."""
    try:
        parse_requested_checksum(headers)
    except S3Error as refused:
        assert refused.code in ("InvalidRequest", "BadDigest")


def test_algorithm_names() -> None:
    """Any case is accepted, other names are refused with the list."""
    assert parse_algorithm("crc64nvme") is CRC64NVME
    with pytest.raises(S3Error, match="CRC32, CRC32C, CRC64NVME, SHA1, SHA256"):
        parse_algorithm("md5")


@pytest.mark.parametrize(
    ("algorithm", "asked", "kept"),
    [
        (None, None, (None, None)),
        (CRC32, None, (CRC32, ChecksumType.COMPOSITE)),
        (CRC32C, None, (CRC32C, ChecksumType.COMPOSITE)),
        (CRC64NVME, None, (CRC64NVME, ChecksumType.FULL_OBJECT)),
        (SHA1, None, (SHA1, ChecksumType.COMPOSITE)),
        (SHA256, "COMPOSITE", (SHA256, ChecksumType.COMPOSITE)),
        (CRC32, "FULL_OBJECT", (CRC32, ChecksumType.FULL_OBJECT)),
        (CRC32C, "full_object", (CRC32C, ChecksumType.FULL_OBJECT)),
    ],
)
def test_types_of_multipart_uploads(
    algorithm: ChecksumAlgorithm | None, asked: str | None, kept: tuple[object, object]
) -> None:
    """Defaults and choices as AWS tabulates them."""
    assert choose_upload_checksum(algorithm, asked) == kept


@pytest.mark.parametrize(
    ("algorithm", "asked", "part"),
    [
        (None, "COMPOSITE", "can only be used with the x-amz-checksum-algorithm header"),
        (CRC64NVME, "COMPOSITE", "The COMPOSITE checksum type cannot be used with the crc64nvme checksum algorithm."),
        (SHA1, "FULL_OBJECT", "The FULL_OBJECT checksum type cannot be used with the sha1 checksum algorithm."),
        (SHA256, "FULL_OBJECT", "The FULL_OBJECT checksum type cannot be used with the sha256 checksum algorithm."),
        (CRC32, "PARTIAL", "Value for x-amz-checksum-type header is invalid."),
    ],
)
def test_impossible_types(algorithm: ChecksumAlgorithm | None, asked: str, part: str) -> None:
    """A type that the algorithm does not have is InvalidRequest."""
    with pytest.raises(S3Error) as refused:
        choose_upload_checksum(algorithm, asked)
    assert (refused.value.code, part in refused.value.message) == ("InvalidRequest", True)


@pytest.mark.parametrize("algorithm", FULL_OBJECT_ALGORITHMS)
@given(parts=st.lists(st.binary(max_size=200), max_size=8))
def test_full_object_is_that_of_the_joined_bytes(algorithm: ChecksumAlgorithm, parts: list[bytes]) -> None:
    """Combining the parts' CRCs gives the CRC of all bytes, empty parts included."""
    combined = combine_full_object(algorithm, [(value_of(algorithm, part), len(part)) for part in parts])
    assert combined.value == value_of(algorithm, b"".join(parts))
    assert combined.type is ChecksumType.FULL_OBJECT


@pytest.mark.parametrize("algorithm", FULL_OBJECT_ALGORITHMS)
def test_full_object_of_ten_thousand_parts(algorithm: ChecksumAlgorithm) -> None:
    """The largest part list, with the length of real parts: equal parts fold to the CRC of a repetition."""
    part = bytes(5 << 20)
    combined = combine_full_object(algorithm, [(value_of(algorithm, part), len(part))] * 10_000)
    twos = value_of(algorithm, part)
    size, count, whole = len(part), 10_000, None
    while count:
        if count & 1:
            whole = (twos, size) if whole is None else joined(algorithm, (twos, size), whole)
        twos, size = joined(algorithm, (twos, size), (twos, size))
        count >>= 1
    assert whole is not None
    assert combined.value == whole[0]


def joined(algorithm: ChecksumAlgorithm, one: tuple[str, int], two: tuple[str, int]) -> tuple[str, int]:
    """Two neighbours combined."""
    return combine_full_object(algorithm, [one, two]).value, one[1] + two[1]


@pytest.mark.parametrize("algorithm", ChecksumAlgorithm)
def test_composite_is_that_of_the_digests(algorithm: ChecksumAlgorithm) -> None:
    """The digests of the parts are hashed, and the number of parts stands behind."""
    values = [value_of(algorithm, part) for part in (b"one", b"two", b"three")]
    combined = combine_composite(algorithm, values)
    digests = b"".join(base64.b64decode(value) for value in values)
    assert combined.value == f"{value_of(algorithm, digests)}-3"
    assert combined.type is ChecksumType.COMPOSITE


def test_shas_cannot_be_combined() -> None:
    """Asking for it is a mistake of the program."""
    with pytest.raises(ValueError, match="SHA1"):
        combine_full_object(SHA1, [])
