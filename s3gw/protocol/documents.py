"""PURE. Response documents of the listings, copies, deletes and multipart uploads, as string templates.

Source: the response syntax of each action in the Amazon S3 API Reference. A page of 1,000 keys is one join of 1,000
f-strings; that is what keeps listings fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from s3gw.protocol.dates import format_iso_date
from s3gw.protocol.list_page import ListQuery, PartQuery, UploadQuery, format_token
from s3gw.protocol.xml import document, element, encode_url, escape, escape_name
from storage.metadata.interface import HeadEntry, HeadPage, PartPage, UploadPage
from storage.model import Bucket, Checksum, Upload, User

OwnerNames = Mapping[str, str]
"""canonical id → display name"""
FindOwner = Callable[[Upload], str]
"""the canonical id of whom the object will belong to; the upload's own owner is its initiator"""


class DeleteOutcome(NamedTuple):
    """What became of one key of DeleteObjects. code: `` when it was deleted."""

    object_key: bytes
    version_id: str | None = None
    marker_version_id: str | None = None
    is_marker: bool = False
    code: str = ""
    message: str = ""


def format_owner(canonical_id: str, names: OwnerNames, tag: str = "Owner") -> str:
    """`<Owner>` (or `<Initiator>`) of a canonical user."""
    display_name = names.get(canonical_id, canonical_id)
    return f"<{tag}><ID>{escape(canonical_id)}</ID><DisplayName>{escape(display_name)}</DisplayName></{tag}>"


def format_buckets(buckets: Sequence[Bucket], owner: User, prefix: str | None, token: str | None) -> bytes:
    """ListAllMyBucketsResult."""
    lines = "".join(
        f"<Bucket><Name>{bucket.name}</Name><CreationDate>{format_iso_date(bucket.created_ms)}</CreationDate>"
        f"<BucketRegion>{escape(bucket.region)}</BucketRegion></Bucket>"
        for bucket in buckets
    )
    return document(
        "ListAllMyBucketsResult",
        f"{format_owner(owner.canonical_id, {owner.canonical_id: owner.display_name})}<Buckets>{lines}</Buckets>"
        f"{element('ContinuationToken', token)}{element('Prefix', prefix)}",
    )


def format_list_v1(bucket: str, query: ListQuery, page: HeadPage, owners: OwnerNames) -> bytes:
    """ListBucketResult of ListObjects; NextMarker only with a delimiter, as AWS has it."""
    name = _name_writer(query.url_encoded)
    truncated = page.next_after is not None
    next_marker = ""
    if page.next_after is not None and query.delimiter:
        next_marker = f"<NextMarker>{name(page.next_after)}</NextMarker>"
    return document(
        "ListBucketResult",
        f"<Name>{escape(bucket)}</Name><Prefix>{name(query.prefix)}</Prefix><Marker>{name(query.after)}</Marker>"
        f"{next_marker}<MaxKeys>{query.max_keys}</MaxKeys>{_delimiter(query.delimiter, name)}"
        f"{_encoding(query.url_encoded)}<IsTruncated>{_flag(truncated)}</IsTruncated>"
        f"{_contents(page.entries, name, owners)}{_common_prefixes(page.common_prefixes, name)}",
    )


def format_list_v2(bucket: str, query: ListQuery, page: HeadPage, owners: OwnerNames) -> bytes:
    """ListBucketResult of ListObjectsV2; owners is empty unless they were asked for."""
    name = _name_writer(query.url_encoded)
    start_after = f"<StartAfter>{name(query.start_after)}</StartAfter>" if query.start_after else ""
    next_token = "" if page.next_after is None else element("NextContinuationToken", format_token(page.next_after))
    return document(
        "ListBucketResult",
        f"<Name>{escape(bucket)}</Name><Prefix>{name(query.prefix)}</Prefix>{start_after}"
        f"{element('ContinuationToken', query.token)}{next_token}"
        f"<KeyCount>{len(page.entries) + len(page.common_prefixes)}</KeyCount><MaxKeys>{query.max_keys}</MaxKeys>"
        f"{_delimiter(query.delimiter, name)}{_encoding(query.url_encoded)}"
        f"<IsTruncated>{_flag(page.next_after is not None)}</IsTruncated>"
        f"{_contents(page.entries, name, owners)}{_common_prefixes(page.common_prefixes, name)}",
    )


def format_uploads(
    bucket: str, query: UploadQuery, page: UploadPage, owners: OwnerNames, find_owner: FindOwner
) -> bytes:
    """ListMultipartUploadsResult."""
    name = _name_writer(query.url_encoded)
    following = ""
    if page.next_after is not None:
        following = (
            f"<NextKeyMarker>{name(page.next_after[0])}</NextKeyMarker>"
            f"<NextUploadIdMarker>{escape(page.next_after[1])}</NextUploadIdMarker>"
        )
    uploads = "".join(
        f"<Upload><Key>{name(upload.object_key)}</Key><UploadId>{escape(upload.upload_id)}</UploadId>"
        f"{format_owner(upload.owner_id, owners, 'Initiator')}{format_owner(find_owner(upload), owners)}"
        f"<StorageClass>{upload.attributes.storage_class}</StorageClass>"
        f"<Initiated>{format_iso_date(upload.initiated_ms)}</Initiated>"
        f"{element('ChecksumAlgorithm', upload.checksum_algorithm)}{element('ChecksumType', upload.checksum_type)}"
        "</Upload>"
        for upload in page.uploads
    )
    return document(
        "ListMultipartUploadsResult",
        f"<Bucket>{escape(bucket)}</Bucket><KeyMarker>{name(query.key_marker)}</KeyMarker>"
        f"<UploadIdMarker>{escape(query.upload_id_marker)}</UploadIdMarker>{following}"
        f"<Prefix>{name(query.prefix)}</Prefix>{_delimiter(query.delimiter, name)}{_encoding(query.url_encoded)}"
        f"<MaxUploads>{query.max_uploads}</MaxUploads><IsTruncated>{_flag(page.next_after is not None)}</IsTruncated>"
        f"{uploads}{_common_prefixes(page.common_prefixes, name)}",
    )


def format_parts(bucket: str, query: PartQuery, page: PartPage, owners: OwnerNames, find_owner: FindOwner) -> bytes:
    """ListPartsResult."""
    upload = page.upload
    name = _name_writer(query.url_encoded)
    parts = "".join(
        f"<Part><PartNumber>{part.part_number}</PartNumber><LastModified>{format_iso_date(part.last_modified_ms)}"
        f"</LastModified><ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size>{_checksum(part.checksum)}</Part>"
        for part in page.parts
    )
    last = page.next_after if page.next_after is not None else page.parts[-1].part_number if page.parts else 0
    return document(
        "ListPartsResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{name(upload.object_key)}</Key>"
        f"<UploadId>{escape(upload.upload_id)}</UploadId>{_encoding(query.url_encoded)}"
        f"<PartNumberMarker>{query.after}</PartNumberMarker><NextPartNumberMarker>{last}</NextPartNumberMarker>"
        f"<MaxParts>{query.max_parts}</MaxParts><IsTruncated>{_flag(page.next_after is not None)}</IsTruncated>{parts}"
        f"{format_owner(upload.owner_id, owners, 'Initiator')}{format_owner(find_owner(upload), owners)}"
        f"<StorageClass>{upload.attributes.storage_class}</StorageClass>"
        f"{element('ChecksumAlgorithm', upload.checksum_algorithm)}{element('ChecksumType', upload.checksum_type)}",
    )


def format_upload_created(bucket: str, object_key: bytes, upload_id: str) -> bytes:
    """InitiateMultipartUploadResult."""
    return document(
        "InitiateMultipartUploadResult",
        f"<Bucket>{escape(bucket)}</Bucket><Key>{escape_name(object_key)}</Key><UploadId>{escape(upload_id)}</UploadId>",
    )


def format_upload_completed(
    location: str, bucket: str, object_key: bytes, etag: str, checksum: Checksum | None
) -> bytes:
    """CompleteMultipartUploadResult."""
    return document(
        "CompleteMultipartUploadResult",
        f"<Location>{escape(location)}</Location><Bucket>{escape(bucket)}</Bucket><Key>{escape_name(object_key)}</Key>"
        f"<ETag>&quot;{etag}&quot;</ETag>{_checksum(checksum)}{_checksum_type(checksum)}",
    )


def format_copied(root_name: str, etag: str, last_modified_ms: int, checksum: Checksum | None) -> bytes:
    """CopyObjectResult or CopyPartResult."""
    kind = _checksum_type(checksum) if root_name == "CopyObjectResult" else ""
    return document(
        root_name,
        f"<LastModified>{format_iso_date(last_modified_ms)}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
        f"{_checksum(checksum)}{kind}",
    )


def format_deleted(outcomes: Sequence[DeleteOutcome], quiet: bool) -> bytes:
    """DeleteResult: the failures, and unless quiet the successes."""
    lines: list[str] = []
    for outcome in outcomes:
        named = f"<Key>{escape_name(outcome.object_key)}</Key>{element('VersionId', outcome.version_id)}"
        if outcome.code:
            lines.append(
                f"<Error>{named}<Code>{outcome.code}</Code><Message>{escape(outcome.message)}</Message></Error>"
            )
        elif not quiet:
            marker = "<DeleteMarker>true</DeleteMarker>" if outcome.is_marker else ""
            marker += element("DeleteMarkerVersionId", outcome.marker_version_id)
            lines.append(f"<Deleted>{named}{marker}</Deleted>")
    return document("DeleteResult", "".join(lines))


def _contents(entries: Sequence[HeadEntry], name: Callable[[bytes], str], owners: OwnerNames) -> str:
    owner_lines = {owner_id: format_owner(owner_id, owners) for owner_id in owners}
    return "".join(
        [
            f"<Contents><Key>{name(entry.object_key)}</Key><LastModified>{format_iso_date(entry.last_modified_ms)}"
            f"</LastModified><ETag>&quot;{entry.etag}&quot;</ETag>{_entry_checksum(entry)}<Size>{entry.size}</Size>"
            f"{owner_lines.get(entry.owner_id, '')}<StorageClass>{entry.storage_class}</StorageClass></Contents>"
            for entry in entries
        ]
    )


def _entry_checksum(entry: HeadEntry) -> str:
    if not entry.checksum_algorithm:
        return ""
    return (
        f"<ChecksumAlgorithm>{entry.checksum_algorithm}</ChecksumAlgorithm>"
        f"<ChecksumType>{entry.checksum_type}</ChecksumType>"
    )


def _common_prefixes(prefixes: Sequence[bytes], name: Callable[[bytes], str]) -> str:
    return "".join(f"<CommonPrefixes><Prefix>{name(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes)


def _name_writer(url_encoded: bool) -> Callable[[bytes], str]:
    return encode_url if url_encoded else escape_name


def _delimiter(delimiter: bytes, name: Callable[[bytes], str]) -> str:
    return f"<Delimiter>{name(delimiter)}</Delimiter>" if delimiter else ""


def _encoding(url_encoded: bool) -> str:
    return "<EncodingType>url</EncodingType>" if url_encoded else ""


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _checksum(checksum: Checksum | None) -> str:
    return "" if checksum is None else element(f"Checksum{checksum.algorithm}", checksum.value)


def _checksum_type(checksum: Checksum | None) -> str:
    return "" if checksum is None else element("ChecksumType", checksum.type)
