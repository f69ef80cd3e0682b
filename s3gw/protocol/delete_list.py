"""PURE. The document of DeleteObjects: what is to be deleted, each under its own conditions.

Source: Amazon S3 API Reference, DeleteObjects and ObjectIdentifier.
"""

from __future__ import annotations

from typing import NamedTuple

from s3gw.protocol.conditions import parse_date_condition, parse_etags, parse_size_condition
from s3gw.protocol.documents import DeleteOutcome
from s3gw.protocol.errors import CATALOGUE, S3Error
from s3gw.protocol.routing import OBJECT_KEY_BYTES_MAX
from s3gw.protocol.versions import check_version_id
from s3gw.protocol.xml import Element, parse_xml
from storage.metadata.commands import Conditions, DeleteTarget

DELETE_KEYS_MAX = 1000


class DeleteList(NamedTuple):
    """items: a target each, or already the outcome of one that cannot be deleted. quiet: tell the failures only."""

    items: list[DeleteTarget | DeleteOutcome]
    quiet: bool


def parse_delete_list(raw: bytes) -> DeleteList:
    """Delete. MalformedXML, also for no key or more than 1,000."""
    root = parse_xml(raw, "Delete")
    quiet = (root.child_text("Quiet") or "").strip().lower() == "true"
    items = [_parse_item(element) for element in root.all("Object")]
    if not 1 <= len(items) <= DELETE_KEYS_MAX:
        raise S3Error("MalformedXML")
    return DeleteList(items, quiet)


def fail_delete(object_key: bytes, version_id: str | None, code: str, message: str | None = None) -> DeleteOutcome:
    """The outcome of a refusal."""
    return DeleteOutcome(object_key, version_id, code=code, message=message or CATALOGUE[code].message)


def _parse_item(element: Element) -> DeleteTarget | DeleteOutcome:
    name = element.child_text("Key")
    if not name:
        raise S3Error("MalformedXML")
    object_key = name.encode()
    version = element.child_text("VersionId")
    if len(object_key) > OBJECT_KEY_BYTES_MAX:
        return fail_delete(object_key, version, "KeyTooLongError")
    version_id = None
    if version:
        try:
            version_id = check_version_id(version)
        except S3Error:
            return fail_delete(object_key, version, "NoSuchVersion")
    try:
        return DeleteTarget(object_key, version_id, _parse_conditions(element))
    except S3Error as error:
        return fail_delete(object_key, version, error.code, error.message)


def _parse_conditions(element: Element) -> Conditions:
    etag, size, modified = (element.child_text(name) for name in ("ETag", "Size", "LastModifiedTime"))
    if not etag and not size and not modified:
        return _UNCONDITIONAL
    tags = parse_etags(etag) if etag else frozenset()
    if etag and len(tags) != 1:
        raise S3Error("InvalidArgument", ArgumentName="ETag", ArgumentValue=etag[:256])
    return Conditions(
        if_match=next(iter(tags)) if tags else None,
        size=parse_size_condition("Size", size) if size else None,
        last_modified_s=parse_date_condition("LastModifiedTime", modified) if modified else None,
    )


_UNCONDITIONAL = Conditions()
