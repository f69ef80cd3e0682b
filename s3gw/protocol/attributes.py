"""PURE. What a client says of an object in headers, and the headers that give it back.

Source: Amazon S3 API Reference, PutObject and GetObject; User Guide, "Working with object metadata". Headers that ask
for something Frostbyte does not do are refused with NotImplemented: storing the object without it would lose meaning.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header

from s3gw.protocol.errors import S3Error
from s3gw.protocol.tags import parse_tags
from storage.model import Attributes

USER_METADATA_BYTES_MAX = 2048
CONTENT_TYPE_DEFAULT = "binary/octet-stream"
STORAGE_CLASS_DEFAULT = "STANDARD"

STORAGE_CLASSES = frozenset(
    {
        STORAGE_CLASS_DEFAULT,
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "GLACIER_IR",
        "DEEP_ARCHIVE",
    }
)
"""echoed, and stored alike; an archive class needs no restore here"""

_META = "x-amz-meta-"
_STANDARD_HEADERS = ("content-encoding", "content-disposition", "content-language", "cache-control", "expires")
_REDIRECT = "x-amz-website-redirect-location"
_TEXT = re.compile(r"[\x20-\x7e]*")
_RESPONSE_OVERRIDES = {
    "response-content-type": b"content-type",
    "response-content-language": b"content-language",
    "response-expires": b"expires",
    "response-cache-control": b"cache-control",
    "response-content-disposition": b"content-disposition",
    "response-content-encoding": b"content-encoding",
}


def parse_attributes(headers: Mapping[str, str]) -> Attributes:
    """All but the checksum. MetadataTooLarge, InvalidStorageClass, InvalidTag, InvalidRequest, NotImplemented."""
    kept = {name: text for name in _STANDARD_HEADERS if (text := headers.get(name))}
    encoding = kept.get("content-encoding")
    if encoding is not None:
        kept.pop("content-encoding")
        if remaining := strip_aws_chunked(encoding):
            kept["content-encoding"] = remaining
    if redirect := headers.get(_REDIRECT):
        if not redirect.startswith(("/", "http://", "https://")):
            raise S3Error(
                "InvalidRequest", "The website redirect location must have a prefix of 'http://', 'https://' or '/'"
            )
        kept["website-redirect-location"] = redirect
    return Attributes(
        content_type=headers.get("content-type") or CONTENT_TYPE_DEFAULT,
        headers=kept,
        user_metadata=parse_user_metadata(headers),
        storage_class=parse_storage_class(headers),
        tags=parse_tags(headers.get("x-amz-tagging", "")),
    )


def parse_user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """`x-amz-meta-*` by lower-case name, decoded by RFC 2047. MetadataTooLarge above 2 KB of names and values."""
    metadata: dict[str, str] = {}
    size = 0
    for header, raw in headers.items():
        if header.startswith(_META):
            name, text = header[len(_META) :], decode_metadata(raw)
            size += len(name) + len(text.encode())
            metadata[name] = text
    if size > USER_METADATA_BYTES_MAX:
        raise S3Error("MetadataTooLarge", Size=str(size), MaxSizeAllowed=str(USER_METADATA_BYTES_MAX))
    return metadata


def decode_metadata(raw: str) -> str:
    """A header value (its bytes as latin-1) → text: raw UTF-8 is taken as such, encoded words are decoded."""
    if not raw.isascii():
        try:
            return raw.encode("latin-1").decode()
        except UnicodeError:
            return raw
    if "=?" not in raw:
        return raw
    try:
        decoded = "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "ascii")
            for piece, charset in decode_header(raw)
        )
        decoded.encode()
    except (HeaderParseError, LookupError, ValueError):
        return raw
    return decoded


def encode_metadata(text: str) -> bytes:
    """The inverse: printable ASCII goes as it is, anything else as one encoded word, so no value can split a header."""
    if _TEXT.fullmatch(text) and "=?" not in text and text == text.strip():
        return text.encode("ascii")
    return b"=?UTF-8?B?" + base64.b64encode(text.encode()) + b"?="


def strip_aws_chunked(encoding: str) -> str:
    """Content-Encoding without `aws-chunked`, which describes the request and not the object."""
    if "aws-chunked" not in encoding.lower():
        return encoding
    tokens = [token.strip() for token in encoding.split(",")]
    return ",".join(token for token in tokens if token and token.lower() != "aws-chunked")


def parse_storage_class(headers: Mapping[str, str]) -> str:
    """x-amz-storage-class, checked. InvalidStorageClass."""
    storage_class = headers.get("x-amz-storage-class") or STORAGE_CLASS_DEFAULT
    if storage_class not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage_class)
    return storage_class


def format_attributes(attributes: Attributes) -> list[tuple[bytes, bytes]]:
    """The response headers of a GET or HEAD that come from the object's attributes."""
    lines = [(b"content-type", _header_bytes(attributes.content_type))]
    for name, text in attributes.headers.items():
        header = _REDIRECT if name == "website-redirect-location" else name
        lines.append((header.encode("ascii"), _header_bytes(text)))
    for name, text in attributes.user_metadata.items():
        lines.append((b"x-amz-meta-" + name.encode("latin-1"), encode_metadata(text)))
    if attributes.storage_class != STORAGE_CLASS_DEFAULT:
        lines.append((b"x-amz-storage-class", attributes.storage_class.encode("ascii")))
    if attributes.tags:
        lines.append((b"x-amz-tagging-count", b"%d" % len(attributes.tags)))
    return lines


def parse_response_overrides(query: Mapping[str, str]) -> dict[bytes, bytes]:
    """`response-*` parameters → the headers they replace. InvalidArgument for what cannot stand in a header."""
    overrides: dict[bytes, bytes] = {}
    for parameter, header in _RESPONSE_OVERRIDES.items():
        text = query.get(parameter)
        if text is None:
            continue
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
            raise S3Error("InvalidArgument", ArgumentName=parameter)
        overrides[header] = text.encode()
    return overrides


def _header_bytes(text: str) -> bytes:
    """Back to the bytes that the client sent."""
    return text.encode("latin-1", "replace")
