"""PURE. x-amz-copy-source and the directives of a copy. Source: Amazon S3 API Reference, CopyObject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from s3gw.protocol.errors import S3Error
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX
from s3gw.protocol.versions import check_version_id

SOURCE_CHARACTERS_MAX = 3 * OBJECT_KEY_BYTES_MAX + 256
COPY_BYTES_MAX = 5 << 30
"""of one CopyObject; larger objects go part by part"""

_VERSION = "?versionId="


class SourceName(NamedTuple):
    """What a copy reads: a version of an object, the current one for None."""

    bucket: str
    object_key: bytes
    version_id: str | None


def parse_copy_source(header: str) -> SourceName:
    """`[/]bucket/key[?versionId=id]`, url-encoded; a plus is a space, as AWS has it. InvalidArgument."""
    path, separator, version = header.partition(_VERSION)
    raw = unquote_to_bytes(path.replace("+", " ").encode("latin-1", "replace")).removeprefix(b"/")
    bucket, slash, object_key = raw.partition(b"/")
    if len(header) > SOURCE_CHARACTERS_MAX or not slash or not bucket or not object_key or not bucket.isascii():
        raise _invalid(header)
    if len(object_key) > OBJECT_KEY_BYTES_MAX:
        raise _invalid(header)
    try:
        object_key.decode()
    except UnicodeDecodeError:
        raise _invalid(header) from None
    return SourceName(bucket.decode("ascii"), object_key, check_version_id(version) if separator else None)


def parse_directive(headers: Mapping[str, str], name: str) -> bool:
    """Whether `x-amz-metadata-directive` or `x-amz-tagging-directive` says REPLACE. InvalidArgument."""
    directive = headers.get(name) or "COPY"
    if directive not in ("COPY", "REPLACE"):
        raise S3Error(
            "InvalidArgument",
            f"Unknown {'tagging' if 'tagging' in name else 'metadata'} directive.",
            ArgumentName=name,
            ArgumentValue=directive,
        )
    return directive == "REPLACE"


def _invalid(header: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        ArgumentName="x-amz-copy-source",
        ArgumentValue=header[:256],
    )
