"""A form's file as a body: however the request is cut, its blocks and its tail are the file, verified at the end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.body import BLOCK_BYTES_MAX, TAIL_BYTES_MAX, BodyDigests
from s3gw.form_body import FormFile, read_form
from s3gw.patience import ClientDisconnected
from s3gw.protocol.errors import S3Error
from s3gw.protocol.post_policy import PostPolicy
from tests.s3gw.forms import CONTENT_TYPE, encode_form


def messages_of(body: bytes, cuts: list[int]) -> Iterator[dict[str, Any]]:
    """ASGI's messages of a request body, cut at these places."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        yield {"type": "http.request", "body": body[start:end], "more_body": end < len(body)}
    yield {"type": "http.disconnect"}


async def open_file(
    body: bytes, cuts: list[int], headers: dict[str, str] | None = None, policy: PostPolicy | None = None
) -> FormFile:
    """Read the head of a form and open its file."""
    messages = messages_of(body, cuts)

    async def receive() -> dict[str, Any]:
        return next(messages)

    sent = {b"content-type": CONTENT_TYPE.encode(), b"content-length": str(len(body)).encode()}
    upload = await read_form(receive, sent)
    return upload.open_file(headers or {}, policy)


async def take(file: FormFile) -> tuple[bytes, BodyDigests]:
    """All of a file, as a store takes it."""
    blocks = [block async for block in file]
    assert all(0 < len(block) <= BLOCK_BYTES_MAX for block in blocks)
    sure = b"".join(blocks)
    assert len(sure) == file.length
    digests = await file.finish()
    assert len(file.tail) <= TAIL_BYTES_MAX
    return sure + file.tail, digests


FILES = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 3 * TAIL_BYTES_MAX).map(lambda size: (b"0123456789\r\n--" * (size // 14 + 1))[:size]),
)


@settings(max_examples=60, deadline=None)
@given(FILES, st.sampled_from([0, 1, 1000, 50_000]), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_cut_gives_the_file(data: bytes, behind: int, cuts: list[int]) -> None:
    """With what a browser sends behind it, or nothing."""
    body = encode_form({"key": "k"}, data, after={"b": "x" * behind} if behind else {})

    async def read() -> tuple[bytes, BodyDigests]:
        return await take(await open_file(body, cuts))

    got, digests = asyncio.run(read())
    assert got == data
    assert digests.md5 == hashlib.md5(data).digest()


async def test_little_is_held_of_a_large_file() -> None:
    """All but the last 64 KiB is handed on while it comes."""
    data = bytes(3_000_000)
    file = await open_file(encode_form({}, data), [65_536 * n for n in range(46)])
    assert len(data) - TAIL_BYTES_MAX <= file.length < len(data)


@pytest.mark.parametrize(("low", "high", "code"), [(0, 9, "EntityTooLarge"), (3_000_100, 1 << 40, "EntityTooSmall")])
async def test_a_length_that_cannot_be_is_refused_at_once(low: int, high: int, code: str) -> None:
    """Before the file is read."""
    body = encode_form({}, bytes(3_000_000))
    with pytest.raises(S3Error) as refused:
        await open_file(body, [1000], policy=PostPolicy(0.0, (), low, high))
    assert refused.value.code == code


@pytest.mark.parametrize(("low", "high", "code"), [(0, 9, "EntityTooLarge"), (11, 20, "EntityTooSmall"), (10, 10, "")])
async def test_a_length_is_judged_at_the_end(low: int, high: int, code: str) -> None:
    """Where what follows the file left it open."""
    body = encode_form({}, b"x" * 10, after={"b": "y" * 500})
    refused = ""
    try:
        await take(await open_file(body, [150], policy=PostPolicy(0.0, (), low, high)))
    except S3Error as error:
        refused = error.code
    assert refused == code


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-md5": base64.b64encode(hashlib.md5(b"file").digest()).decode()}, ""),
        ({"content-md5": base64.b64encode(hashlib.md5(b"other").digest()).decode()}, "BadDigest"),
        ({"content-md5": "no"}, "InvalidDigest"),
        ({"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"file").digest()).decode()}, ""),
        ({"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"other").digest()).decode()}, "BadDigest"),
        ({"x-amz-checksum-sha256": "bm8="}, "BadDigest"),
    ],
)
async def test_digests(headers: dict[str, str], code: str) -> None:
    """What the form says of its file is held against it."""
    refused = ""
    try:
        file = await open_file(encode_form({}, b"file"), [], headers)
        assert file.proves_itself
        await take(file)
    except S3Error as error:
        refused = error.code
    assert refused == code


async def test_more_behind_the_file_than_is_read_over() -> None:
    """What was sure turns out not to be there."""
    file = await open_file(encode_form({}, b"x", after={"b": "y" * 500_000}), [300])
    with pytest.raises(S3Error) as refused:
        await take(file)
    assert refused.value.code == "MalformedPOSTRequest"


@pytest.mark.parametrize("place", [50, 200, 100_000, 199_000])
async def test_a_form_that_breaks_off(place: int) -> None:
    """In its head, in its file, in its tail: nobody is there to be answered."""
    whole = encode_form({"key": "k"}, bytes(200_000))
    messages = iter([{"type": "http.request", "body": whole[:place], "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, Any]:
        return next(messages)

    sent = {b"content-type": CONTENT_TYPE.encode(), b"content-length": str(len(whole)).encode()}
    with pytest.raises(ClientDisconnected):
        await take((await read_form(receive, sent)).open_file({}, None))


@pytest.mark.parametrize("length", [None, b"", b"-1", b"x", b"9" * 20])
async def test_a_form_says_how_long_it_is(length: bytes | None) -> None:
    """411 without that."""
    sent = {b"content-type": CONTENT_TYPE.encode()} | ({} if length is None else {b"content-length": length})

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    with pytest.raises(S3Error) as refused:
        await read_form(receive, sent)
    assert refused.value.code == "MissingContentLength"


async def test_a_file_above_5_gib_is_refused_at_once() -> None:
    """As a PUT is."""
    head = encode_form({}, b"x" * 100)[:300]
    sent = {b"content-type": CONTENT_TYPE.encode(), b"content-length": str(6 << 30).encode()}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": head, "more_body": True}

    upload = await read_form(receive, sent)
    with pytest.raises(S3Error) as refused:
        upload.open_file({}, None)
    assert refused.value.code == "EntityTooLarge"
