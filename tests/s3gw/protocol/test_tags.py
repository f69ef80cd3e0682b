"""Tags: the header, the documents, and that whatever was taken is given back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.tags import (
    BUCKET_TAGS_MAX,
    OBJECT_TAGS_MAX,
    format_tags,
    parse_bucket_tagging,
    parse_object_tagging,
    parse_tags,
    read_bucket_tags,
)

NAMES = st.text(st.sampled_from("abz0 _-./:=@+éß漢"), min_size=1, max_size=128)
VALUES = st.text(st.sampled_from("abz0 _-./:=@+éß漢"), max_size=256)


def tagging(*pairs: tuple[str, str]) -> bytes:
    """A document of these tags."""
    lines = "".join(f"<Tag><Key>{name}</Key><Value>{text}</Value></Tag>" for name, text in pairs)
    return f"<Tagging><TagSet>{lines}</TagSet></Tagging>".encode()


def numbered(count: int) -> list[tuple[str, str]]:
    """So many different tags."""
    return [(f"name-{number}", "") for number in range(count)]


@pytest.mark.parametrize(
    ("header", "tags"),
    [("", {}), ("a=1&b=", {"a": "1", "b": ""}), ("a%20b=c+d", {"a b": "c d"}), ("é=ü", {"é": "ü"})],
)
def test_tags(header: str, tags: dict[str, str]) -> None:
    """Form encoding."""
    assert parse_tags(header) == tags


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("&".join(f"t{n}=1" for n in range(11)), "BadRequest"),
        ("=1", "InvalidTag"),
        ("a" * 129 + "=1", "InvalidTag"),
        ("a=" + "1" * 257, "InvalidTag"),
        ("a=%00", "InvalidTag"),
        ("a=%FF", "InvalidTag"),
    ],
)
def test_bad_tags(header: str, code: str) -> None:
    """Count, lengths, characters."""
    with pytest.raises(S3Error) as caught:
        parse_tags(header)
    assert caught.value.code == code


@given(st.text(max_size=60))
def test_any_tag_header_is_parsed_or_refused(header: str) -> None:
    """Nothing else is raised."""
    try:
        parse_tags(header)
    except S3Error as error:
        assert error.status == 400


@given(st.dictionaries(NAMES, VALUES, max_size=OBJECT_TAGS_MAX))
def test_a_document_comes_back(tags: dict[str, str]) -> None:
    """What is formatted is parsed to the same tags, in the order of their names."""
    parsed = parse_object_tagging(format_tags(tags))
    assert parsed == tags
    assert list(parsed) == sorted(tags)


def test_documents_in_a_namespace() -> None:
    """As SDKs send them."""
    body = b'<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet><Tag><Key>a</Key><Value/></Tag></TagSet></Tagging>'
    assert parse_object_tagging(body) == {"a": ""}
    assert dict(read_bucket_tags(body)) == {"a": ""}


def test_as_many_as_there_may_be() -> None:
    """10 of an object, 50 of a bucket; one more is refused."""
    assert len(parse_object_tagging(tagging(*numbered(OBJECT_TAGS_MAX)))) == OBJECT_TAGS_MAX
    assert len(parse_bucket_tagging(tagging(*numbered(BUCKET_TAGS_MAX)))) == BUCKET_TAGS_MAX
    with pytest.raises(S3Error) as of_object:
        parse_object_tagging(tagging(*numbered(OBJECT_TAGS_MAX + 1)))
    with pytest.raises(S3Error) as of_bucket:
        parse_bucket_tagging(tagging(*numbered(BUCKET_TAGS_MAX + 1)))
    assert (of_object.value.code, of_bucket.value.code) == ("InvalidTag", "BadRequest")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<Tagging/>", "MalformedXML"),
        (b"<Tags><TagSet/></Tags>", "MalformedXML"),
        (b"<Tagging><TagSet/><TagSet/></Tagging>", "MalformedXML"),
        (b"<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>", "MalformedXML"),
        (b"<Tagging><TagSet><Other><Key>a</Key><Value>1</Value></Other></TagSet></Tagging>", "MalformedXML"),
        (tagging(("a", "1"), ("a", "2")), "InvalidTag"),
        (tagging(("", "1")), "InvalidTag"),
        (tagging(("a" * 129, "1")), "InvalidTag"),
        (tagging(("a", "1" * 257)), "InvalidTag"),
        (tagging(("a", "1;2")), "InvalidTag"),
        (tagging(("aws:reserved", "1")), "InvalidTag"),
        (tagging(("AWS:reserved", "1")), "InvalidTag"),
    ],
)
def test_bad_documents(body: bytes, code: str) -> None:
    """Shape, names, values, doubles; the same for objects and buckets."""
    for parse in (parse_object_tagging, parse_bucket_tagging):
        with pytest.raises(S3Error) as caught:
            parse(body)
        assert caught.value.code == code


@given(st.binary(max_size=200))
def test_any_body_is_parsed_or_refused(body: bytes) -> None:
    """Nothing but a 400 is raised."""
    try:
        parse_object_tagging(body)
    except S3Error as error:
        assert error.status == 400
