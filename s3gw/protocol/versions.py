"""PURE. The versionId that a client names."""

from __future__ import annotations

from collections.abc import Mapping

from s3gw.protocol.errors import S3Error
from storage.base.ids import NULL_VERSION_ID, parse_version_id


def find_version_id(query: Mapping[str, str]) -> str | None:
    """The versionId parameter, None without one. InvalidArgument for what no server handed out."""
    text = query.get("versionId")
    return None if text is None else check_version_id(text)


def check_version_id(text: str, argument: str = "versionId") -> str:
    """`null` or an id of this server's form; InvalidArgument, which names the argument."""
    if text == NULL_VERSION_ID or parse_version_id(text) is not None:
        return text
    message = "Invalid version id specified" if text else "Version id cannot be the empty string"
    raise S3Error("InvalidArgument", message, ArgumentName=argument, ArgumentValue=text[:256])
