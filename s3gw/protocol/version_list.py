"""PURE. ListObjectVersions: what a page asks for, and the document that answers.

Source: Amazon S3 API Reference, ListObjectVersions. Versions and markers stand in one order, by key and the newest of a
key first; a client goes on with the key marker and the version id marker together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from s3gw.protocol.dates import format_iso_date
from s3gw.protocol.documents import OwnerNames, format_owner
from s3gw.protocol.errors import S3Error
from s3gw.protocol.list_page import PAGE_KEYS_MAX, parse_count, parse_encoding
from s3gw.protocol.versions import check_version_id
from s3gw.protocol.xml import document, encode_url, escape, escape_name
from storage.metadata.interface import VersionEntry, VersionPage


class VersionQuery(NamedTuple):
    """A page of versions, after (key marker, version id marker); a marker that is not given is empty."""

    prefix: bytes
    delimiter: bytes
    key_marker: bytes
    version_id_marker: str
    max_keys: int
    url_encoded: bool


def parse_list_versions(query: Mapping[str, str]) -> VersionQuery:
    """ListObjectVersions. InvalidArgument, also for a version id marker that no key marker comes with."""
    key_marker = query.get("key-marker", "").encode()
    version_id_marker = query.get("version-id-marker", "")
    if version_id_marker:
        if not key_marker:
            raise S3Error(
                "InvalidArgument",
                "A version-id marker cannot be specified without a key marker.",
                ArgumentName="version-id-marker",
                ArgumentValue=version_id_marker[:256],
            )
        check_version_id(version_id_marker, "version-id-marker")
    return VersionQuery(
        query.get("prefix", "").encode(),
        query.get("delimiter", "").encode(),
        key_marker,
        version_id_marker,
        parse_count(query, "max-keys", PAGE_KEYS_MAX),
        parse_encoding(query),
    )


def format_versions(bucket: str, query: VersionQuery, page: VersionPage, owners: OwnerNames) -> bytes:
    """ListVersionsResult. After a page that ends with a common prefix, the next version id marker is left out."""
    name = encode_url if query.url_encoded else escape_name
    following = ""
    if page.next_after is not None:
        next_key, next_version_id = page.next_after
        following = f"<NextKeyMarker>{name(next_key)}</NextKeyMarker>"
        if next_version_id:
            following += f"<NextVersionIdMarker>{next_version_id}</NextVersionIdMarker>"
    owner_lines = {owner_id: format_owner(owner_id, owners) for owner_id in owners}
    entries = "".join([_format_entry(entry, name, owner_lines) for entry in page.entries])
    prefixes = "".join(
        f"<CommonPrefixes><Prefix>{name(prefix)}</Prefix></CommonPrefixes>" for prefix in page.common_prefixes
    )
    return document(
        "ListVersionsResult",
        f"<Name>{escape(bucket)}</Name><Prefix>{name(query.prefix)}</Prefix><KeyMarker>{name(query.key_marker)}"
        f"</KeyMarker><VersionIdMarker>{escape(query.version_id_marker)}</VersionIdMarker>{following}"
        f"<MaxKeys>{query.max_keys}</MaxKeys>"
        f"{f'<Delimiter>{name(query.delimiter)}</Delimiter>' if query.delimiter else ''}"
        f"{'<EncodingType>url</EncodingType>' if query.url_encoded else ''}"
        f"<IsTruncated>{'true' if following else 'false'}</IsTruncated>{entries}{prefixes}",
    )


def _format_entry(entry: VersionEntry, name: Callable[[bytes], str], owner_lines: Mapping[str, str]) -> str:
    latest = "true" if entry.is_latest else "false"
    identity = (
        f"<Key>{name(entry.object_key)}</Key><VersionId>{entry.version_id}</VersionId><IsLatest>{latest}</IsLatest>"
        f"<LastModified>{format_iso_date(entry.last_modified_ms)}</LastModified>"
    )
    owner = owner_lines.get(entry.owner_id, "")
    if entry.is_marker:
        return f"<DeleteMarker>{identity}{owner}</DeleteMarker>"
    checksum = ""
    if entry.checksum_algorithm:
        checksum = (
            f"<ChecksumAlgorithm>{entry.checksum_algorithm}</ChecksumAlgorithm>"
            f"<ChecksumType>{entry.checksum_type}</ChecksumType>"
        )
    return (
        f"<Version>{identity}<ETag>&quot;{entry.etag}&quot;</ETag>{checksum}<Size>{entry.size}</Size>"
        f"{owner}<StorageClass>{entry.storage_class}</StorageClass></Version>"
    )
