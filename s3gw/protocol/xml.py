"""SANS-IO. The XML of S3: request documents in, bounded on every side; response documents out, by string templates.

A request document is parsed by expat into small elements without namespaces. DTDs and entities are refused before they
can expand, and size, depth and the number of elements are bounded, so that no document costs more than its own length.
Responses are made by f-strings in the handlers with `escape` around every value: a listing of 1,000 keys is one join.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote
from xml.parsers import expat

from s3gw.protocol.errors import S3Error

XML_BYTES_MAX = 4 << 20
"""1,000 keys of 1,024 bytes to delete, or 10,000 parts with their checksums, fit well"""
XML_DEPTH_MAX = 12
XML_ELEMENTS_MAX = 100_000
"""a part list of 10,000 parts with every checksum has fewer"""

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]')
_REFERENCES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"}


class Element:
    """One element of a request document: its local name, its own text, its children in order."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(self, name: str, attributes: dict[str, str] | None = None) -> None:
        self.name = name
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def child(self, name: str) -> Element | None:
        """The only child of this name; MalformedXML when there are several."""
        found = None
        for element in self.children:
            if element.name == name:
                if found is not None:
                    raise S3Error("MalformedXML")
                found = element
        return found

    def all(self, name: str) -> Iterator[Element]:
        """The children of this name, in order."""
        return (element for element in self.children if element.name == name)

    def child_text(self, name: str) -> str | None:
        """The text of the only child of this name, None without one."""
        found = self.child(name)
        return None if found is None else found.text


class _Builder:
    """Expat's callbacks: grows the tree and keeps the bounds."""

    def __init__(self) -> None:
        self.stack: list[Element] = []
        self.texts: list[list[str]] = []
        self.root: Element | None = None
        self.element_count = 0

    def start(self, qualified_name: str, attributes: dict[str, str]) -> None:
        self.element_count += 1
        if self.element_count > XML_ELEMENTS_MAX or len(self.stack) >= XML_DEPTH_MAX:
            raise S3Error("MalformedXML")
        element = Element(qualified_name.rpartition(":")[2], attributes or None)
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)
        self.texts.append([])

    def end(self, _: str) -> None:
        self.stack.pop().text = "".join(self.texts.pop())

    def data(self, text: str) -> None:
        self.texts[-1].append(text)

    def refuse(self, *_: object) -> None:
        raise S3Error("MalformedXML")


def parse_xml(document: bytes, root_name: str) -> Element:
    """A request document → its root element. MalformedXML for anything but one bounded, DTD-free `root_name` document.

    Read as UTF-8 whatever the declaration says (a byte order mark of UTF-16 is still heeded by expat): codecs are not
    the client's to choose.
    """
    if len(document) > XML_BYTES_MAX:
        raise S3Error("MaxMessageLengthExceeded")
    builder = _Builder()
    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = builder.refuse
    parser.EntityDeclHandler = builder.refuse
    try:
        parser.Parse(document, True)
    except expat.ExpatError:
        raise S3Error("MalformedXML") from None
    if builder.root is None or builder.root.name != root_name:
        raise S3Error("MalformedXML")
    return builder.root


def escape(text: str) -> str:
    """Text for an element. Characters that XML 1.0 cannot carry become U+FFFD, so the document stays well-formed."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda match: _REFERENCES.get(match[0], "\ufffd"), text)


def escape_name(object_key: bytes) -> str:
    """An object key for an element, as AWS writes one: what XML 1.0 cannot carry becomes a numeric reference.

    Strict parsers refuse such a document. That is the honest outcome: a replacement character would name another key,
    and `encoding-type=url` is there for those who have such keys.
    """
    text = object_key.decode("utf-8", "replace")
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda match: _REFERENCES.get(match[0]) or f"&#{ord(match[0])};", text)


def encode_url(object_key: bytes) -> str:
    """For `encoding-type=url`: percent-encoded but for unreserved characters and `/`; a plus becomes `%2B`."""
    return quote(object_key, safe="/")


def is_legal(text: str) -> bool:
    """Whether XML 1.0 can carry every character of the text."""
    return _ILLEGAL.search(text) is None


def element(name: str, text: str | None) -> str:
    """`<name>text</name>` with the text escaped; nothing for None."""
    return "" if text is None else f"<{name}>{escape(text)}</{name}>"


def document(root_name: str, inner: str) -> bytes:
    """A whole response document in S3's namespace."""
    return f'{DECLARATION}<{root_name} xmlns="{XMLNS}">{inner}</{root_name}>'.encode()
