"""Answers as they arrive: in any pieces, within their bounds, and nothing that could be taken for another answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base.answer_reader import HEAD_BYTES_MAX, AnswerHead, AnswerReader

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Frostbyte-Error:  a b \r\n\r\n"


def read_all(data: bytes, cuts: list[int], *, has_body: bool = True) -> tuple[AnswerHead | None, bytes, AnswerReader]:
    """The data in pieces that end at the cuts."""
    reader = AnswerReader()
    reader.begin(has_body=has_body)
    body = b""
    start = 0
    for end in (*sorted(cuts), len(data)):
        if end > start:
            body += reader.feed(data[start:end])
            start = end
    return reader.head, body, reader


@given(st.binary(max_size=200), st.booleans(), st.lists(st.integers(0, 300), max_size=8), st.booleans())
def test_an_answer_comes_out_however_it_is_cut(body: bytes, agrees: bool, cuts: list[int], closes: bool) -> None:
    """Head, body and end; an interim 100 before it is told and nothing else."""
    head = HEAD % len(body)
    if closes:
        head = head[:-2] + b"connection: Close\r\n\r\n"
    data = (b"HTTP/1.1 100 Continue\r\n\r\n" if agrees else b"") + head + body
    found, came, reader = read_all(data, [cut for cut in cuts if cut < len(data)])
    assert found is not None
    assert (found.status, found.length, found.keeps) == (200, len(body), not closes)
    assert found.headers["x-frostbyte-error"] == "a b"
    assert (came, reader.is_over, reader.is_agreed) == (body, True, agrees)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4), st.booleans())
def test_whatever_comes_is_an_answer_or_a_value_error(data: bytes, cuts: list[int], has_body: bool) -> None:
    """No other exception, and never more body than was announced."""
    for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"):
        try:
            head, body, _ = read_all(prefix + data, cuts, has_body=has_body)
        except ValueError:
            continue
        assert head is not None or not body
        assert head is None or len(body) <= head.length


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n folded: x\r\n\r\nx",
        b"HTTP/1.1 200 OK\ncontent-length: 1\n\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 20 OK\r\ncontent-length: 1\r\n\r\nx",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nh: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"x" * (HEAD_BYTES_MAX + 1),
    ],
)
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    """Two lengths, none, more than announced, another framing, another version, a head without end."""
    with pytest.raises(ValueError, match=r".+"):
        read_all(data, [])


def test_an_answer_to_a_head_has_a_length_and_no_body() -> None:
    """And what follows it is refused."""
    head, body, reader = read_all(HEAD % 77, [], has_body=False)
    assert head is not None
    assert (head.length, body, reader.is_over) == (77, b"", True)
    with pytest.raises(ValueError, match="nobody asked for"):
        reader.feed(b"x")


def test_nothing_is_taken_before_it_was_asked_for() -> None:
    """Not even a whole answer: it would be taken for that to the next request."""
    with pytest.raises(ValueError, match="nobody asked for"):
        AnswerReader().feed(HEAD % 0)


def test_one_answer_after_the_other() -> None:
    """On one connection, each begun by its request."""
    reader = AnswerReader()
    for body in (b"one", b"", b"three"):
        reader.begin(has_body=True)
        assert reader.feed(HEAD % len(body) + body) == body
        assert reader.is_over
