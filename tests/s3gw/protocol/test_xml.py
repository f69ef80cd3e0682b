"""XML: bounds against hostile documents, escaping of every character."""

from __future__ import annotations

from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import (
    XML_BYTES_MAX,
    XML_DEPTH_MAX,
    XML_ELEMENTS_MAX,
    document,
    element,
    encode_url,
    escape,
    escape_name,
    is_legal,
    parse_xml,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def refused(raw: bytes, root: str = "R") -> str:
    """The code that a document is refused with."""
    with pytest.raises(S3Error) as caught:
        parse_xml(raw, root)
    return caught.value.code


def test_reads_children_in_order_and_without_namespace() -> None:
    """Lists stay lists, prefixes and namespaces are dropped, comments and instructions are nothing."""
    raw = b'<?xml version="1.0"?><!-- c --><p:R xmlns:p="urn:x"><A>1</A><B/><p:A> 2 </p:A><?pi x?></p:R>'
    root = parse_xml(raw, "R")
    assert [child.text for child in root.all("A")] == ["1", " 2 "]
    assert root.child_text("B") == ""
    assert root.child_text("C") is None


def test_two_of_an_only_child_are_refused() -> None:
    """A document that says one thing twice is malformed."""
    root = parse_xml(b"<R><A>1</A><A>2</A></R>", "R")
    with pytest.raises(S3Error, match="MalformedXML"):
        root.child("A")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"not xml",
        b"<R>",
        b"<R></Q>",
        b"<R/><R/>",
        b"<Other/>",
        b"<R>\xff</R>",
        b"<R>\x00</R>",
        b"<R>&#0;</R>",
        b"<R>&unknown;</R>",
        b'<!DOCTYPE R SYSTEM "file:///etc/passwd"><R/>',
        b'<!DOCTYPE R [<!ENTITY a "b">]><R>&a;</R>',
        b"<R a='1' a='2'/>",
        b'<?xml version="1.0" encoding="utf-7"?><R>+ADw-</R>x',
    ],
)
def test_refuses_what_is_no_plain_document(raw: bytes) -> None:
    """Everything but one well-formed document of the right root is MalformedXML."""
    assert refused(raw) == "MalformedXML"


def test_refuses_a_billion_laughs_before_they_expand() -> None:
    """The entity is refused at its declaration."""
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    raw = f'<!DOCTYPE R [<!ENTITY l0 "lol">{levels}]><R>&l11;</R>'.encode()
    assert refused(raw) == "MalformedXML"


def test_refuses_an_external_entity() -> None:
    """No file is read for a client."""
    assert refused(b'<!DOCTYPE R [<!ENTITY x SYSTEM "file:///etc/passwd">]><R>&x;</R>') == "MalformedXML"


def test_bounds_depth_count_and_size() -> None:
    """Each bound refuses one above it and takes what is at it."""
    nest = lambda depth: b"<R>" * depth + b"</R>" * depth  # noqa: E731
    assert parse_xml(nest(XML_DEPTH_MAX), "R").name == "R"
    assert refused(nest(XML_DEPTH_MAX + 1)) == "MalformedXML"
    flat = lambda count: b"<R>" + b"<A/>" * (count - 1) + b"</R>"  # noqa: E731
    assert len(parse_xml(flat(XML_ELEMENTS_MAX), "R").children) == XML_ELEMENTS_MAX - 1
    assert refused(flat(XML_ELEMENTS_MAX + 1)) == "MalformedXML"
    assert refused(b" " * (XML_BYTES_MAX + 1)) == "MaxMessageLengthExceeded"


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(raw: bytes) -> None:
    """No input raises anything but S3Error."""
    try:
        parse_xml(raw, "R")
    except S3Error as error:
        assert error.code == "MalformedXML"


@given(st.text("<>/R&;![]-'\"= A\x00\n#x1", max_size=80))
def test_any_markup_is_parsed_or_refused(text: str) -> None:
    """Nor does anything that looks like markup."""
    try:
        parse_xml(f"<R>{text}</R>".encode(), "R")
    except S3Error as error:
        assert error.code == "MalformedXML"


@given(TEXT)
def test_escaped_text_comes_back(text: str) -> None:
    """A strict parser reads exactly the text, with U+FFFD for what XML cannot carry."""
    parsed = ElementTree.fromstring(document("R", element("A", text)))
    expected = "".join(character if is_legal(character) else "\ufffd" for character in text)
    assert (parsed[0].text or "") == expected


@given(TEXT.filter(is_legal))
def test_names_without_control_characters_come_back(text: str) -> None:
    """escape_name is as faithful wherever XML allows it."""
    parsed = ElementTree.fromstring(f"<A>{escape_name(text.encode())}</A>")
    assert (parsed.text or "") == text


def test_control_characters_in_names_become_references() -> None:
    """As AWS writes them: a strict parser refuses the document rather than read another key."""
    assert escape_name(b"a\x01b") == "a&#1;b"
    assert escape("a\x01b") == "a\ufffdb"
    assert escape('<a href="x">&\r') == "&lt;a href=&quot;x&quot;&gt;&amp;&#13;"


@given(st.binary(max_size=60))
def test_url_encoding_comes_back(raw: bytes) -> None:
    """Only unreserved characters and the slash stay."""
    encoded = encode_url(raw)
    assert unquote(encoded, "latin-1").encode("latin-1") == raw
    assert encoded.isascii() and not set(encoded) & set('+ <>&"')


def test_url_encoding_of_a_plus_and_a_space() -> None:
    """Row 7: %2B always; a space reads the same to every decoder."""
    assert encode_url(b"a+b c/d~e") == "a%2Bb%20c/d~e"


def test_none_makes_no_element() -> None:
    """An absent value is an absent element."""
    assert element("A", None) == ""
