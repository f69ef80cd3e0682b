"""Forms taken apart: however they are cut into pieces, the same fields and the same file come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.form_data import FORM_HEAD_BYTES_MAX, FORM_PARTS_MAX, FormParser, parse_boundary
from tests.s3gw.forms import BOUNDARY, CONTENT_TYPE, encode_form


def read(body: bytes, *cuts: int) -> tuple[FormParser, bytes]:
    """Feed the body in pieces, and finish."""
    parser = FormParser(BOUNDARY.encode())
    file = b""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        file += b"".join(parser.feed(body[start:end]))
    parser.finish()
    return parser, file


def code_of(body: bytes, *cuts: int) -> str:
    """How such a form is refused."""
    with pytest.raises(S3Error) as refused:
        read(body, *cuts)
    return refused.value.code


NAMES = st.text("abcdefghijklmnopqrstuvwxyz-_", min_size=1, max_size=12).filter(lambda name: name != "file")


@given(
    st.dictionaries(NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=6),
    st.binary(max_size=400) | st.just(b"\r\n--" + BOUNDARY.encode()[:-1]) | st.just(b"\r\r\n--\r\n"),
    st.dictionaries(NAMES, st.text("abc", max_size=5), max_size=2),
    st.lists(st.integers(0, 5000), max_size=8),
)
def test_any_cut_gives_the_same(fields: dict[str, str], file: bytes, after: dict[str, str], cuts: list[int]) -> None:
    """Fields before the file are kept by lower-case name, those behind it are read over, the file is itself."""
    parser, got = read(encode_form(fields, file, after=after), *cuts)
    assert parser.form is not None
    assert (parser.form.fields, parser.form.filename, got) == (fields, "f.txt", file)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_garbage_is_refused(body: bytes, cuts: list[int]) -> None:
    """Whatever it is, it is refused in S3's words."""
    assert code_of(body, *cuts) in ("MalformedPOSTRequest", "InvalidArgument")


@given(st.integers(0, 10_000))
def test_a_form_that_breaks_off_is_refused(place: int) -> None:
    """Anywhere before its closing delimiter."""
    body = encode_form({"key": "a"}, b"file" * 10, end=b"")
    assert code_of(body[: place % len(body)]) == "MalformedPOSTRequest"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("a.txt", "a.txt"), ("dir/a.txt", "a.txt"), (r"C:\\dir\\a.txt", "a.txt"), ("", ""), ("ä.txt", "ä.txt")],
)
def test_filenames(sent: str, kept: str) -> None:
    """Only what follows the last slash or backslash."""
    parser, _ = read(encode_form({}, b"x", filename=sent))
    assert parser.form is not None and parser.form.filename == kept


def test_a_file_without_a_name_and_in_any_case() -> None:
    """`File` is the file; without a filename the name is empty."""
    parser, file = read(encode_form({"KEY": "a"}, b"x", filename=None).replace(b'"file"', b'"FILE"'))
    assert parser.form is not None
    assert (parser.form.fields, parser.form.filename, file) == ({"key": "a"}, "", b"x")


def test_the_second_file_is_read_over() -> None:
    """Only the first counts."""
    body = encode_form({"key": "a"}, b"one").removesuffix(b"--\r\n")
    more = encode_form({}, b"two")[len(BOUNDARY) + 2 :]
    assert read(body + more)[1] == b"one"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (encode_form({"key": "a"}, None), "InvalidArgument"),
        (encode_form([("key", "a"), ("Key", "b")], b"x"), "InvalidArgument"),
        (encode_form({"key": "x" * FORM_HEAD_BYTES_MAX}, b""), "MaxPostPreDataLengthExceeded"),
        (encode_form({str(n): "" for n in range(FORM_PARTS_MAX + 1)}, b""), "MalformedPOSTRequest"),
        (encode_form({"zz": ""}, b"").replace(b"zz", b"\xff"), "MalformedPOSTRequest"),
        (encode_form({"key": "a"}, b"x").replace(b"\r\n\r\na\r\n", b"\r\n\r\n\xff\r\n"), "MalformedPOSTRequest"),
        (b"x" * 200_000, "MaxPostPreDataLengthExceeded"),
    ],
)
def test_refusals(body: bytes, code: str) -> None:
    """No file, a doubled field, too large a head, too many parts, text that is none, and no form at all."""
    assert code_of(body) == code


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (CONTENT_TYPE, BOUNDARY),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', "a b"),
        ("multipart/form-data;boundary=x", "x"),
    ],
)
def test_boundaries(content_type: str, boundary: str) -> None:
    """Quoted or not, whatever stands beside."""
    assert parse_boundary(content_type) == boundary.encode()


@pytest.mark.parametrize(
    ("content_type", "code"),
    [
        ("", "PreconditionFailed"),
        ("text/plain", "PreconditionFailed"),
        ("application/x-www-form-urlencoded", "PreconditionFailed"),
        ("multipart/form-data", "MalformedPOSTRequest"),
        ("multipart/form-data; boundary=", "MalformedPOSTRequest"),
        (f"multipart/form-data; boundary={'x' * 71}", "MalformedPOSTRequest"),
    ],
)
def test_no_boundary(content_type: str, code: str) -> None:
    """Another type, or none of its own."""
    with pytest.raises(S3Error) as refused:
        parse_boundary(content_type)
    assert refused.value.code == code
