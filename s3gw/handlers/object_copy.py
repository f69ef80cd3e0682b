"""CopyObject. Source: Amazon S3 API Reference, CopyObject.

The answer is sent when the copy is committed. AWS may send its 200 early and keep the connection busy with whitespace;
here the status is always the truth, and a copy within a bucket moves no byte.
"""

from __future__ import annotations

import msgspec

from cluster.objectstore import CopySource, PutRequest, PutResult
from s3gw.call import Call, Response
from s3gw.protocol.attributes import parse_attributes, parse_storage_class
from s3gw.protocol.checksums import DEFAULT_ALGORITHM, parse_algorithm
from s3gw.protocol.conditions import parse_write_conditions
from s3gw.protocol.copy_source import COPY_BYTES_MAX, parse_directive
from s3gw.protocol.documents import format_copied
from s3gw.protocol.encryption import Encryption, choose_encryption
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle_answers import format_expiration
from s3gw.protocol.tags import parse_tags
from s3gw.respond import XML_TYPE, Headers, format_written
from s3gw.source import format_source_version, open_source
from s3gw.version_lock import lock_attributes
from storage.base.errors import SourceChanged
from storage.model import Attributes, Version, Versioning

SOURCE_READS_MAX = 3
"""times the source is read anew when it was replaced under the copy"""

_CHANGES = (
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
)


async def copy_object(call: Call) -> Response:
    """Copy the source's bytes, with its attributes or with those of the request."""
    replace = parse_directive(call.headers, "x-amz-metadata-directive")
    encryption = choose_encryption(call.headers, call.bucket)
    for attempt in range(1, SOURCE_READS_MAX + 1):
        source = await open_source(call)
        try:
            request, result = await _copy(call, source, replace, encryption)
        except SourceChanged:
            if attempt == SOURCE_READS_MAX:
                raise
            continue
        return _answer(call, source, request, result, encryption)
    raise AssertionError("the last attempt returns or raises")


async def _copy(call: Call, source: CopySource, replace: bool, encryption: Encryption) -> tuple[PutRequest, PutResult]:
    """What was asked for of the new object, and what became of it."""
    version = source.version
    if version.size > COPY_BYTES_MAX:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {COPY_BYTES_MAX}",
        )
    _check_self_copy(call, source, replace)
    named, stored = call.headers.get("x-amz-checksum-algorithm"), version.attributes.checksum
    algorithm = parse_algorithm(named) if named else stored.algorithm if stored else DEFAULT_ALGORITHM
    attributes = lock_attributes(call, encryption.apply(_plan_attributes(call, version, replace)))
    conditions = parse_write_conditions(call.headers)
    owner_id, attributes = call.choose_owner(call.user.canonical_id, await call.with_acl(attributes))
    request = PutRequest(owner_id, attributes, conditions, encryption.seal)
    return request, await call.services.objects.copy(source, call.bucket, call.object_key, request, algorithm)


def _check_self_copy(call: Call, source: CopySource, replace: bool) -> None:
    """An object may be copied onto itself only to change something about it, or to bring back an older version."""
    same = source.bucket.bucket_id == call.bucket.bucket_id and source.version.object_key == call.object_key
    if not same or replace or any(call.headers.get(name) for name in _CHANGES):
        return
    if "?versionId=" in call.headers["x-amz-copy-source"] and call.bucket.versioning is not Versioning.UNVERSIONED:
        return
    raise S3Error(
        "InvalidRequest",
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's"
        " metadata, storage class, website redirect location or encryption attributes.",
    )


def _plan_attributes(call: Call, version: Version, replace: bool) -> Attributes:
    """REPLACE takes everything from the request and merges nothing. The storage class is never copied."""
    replace_tags = parse_directive(call.headers, "x-amz-tagging-directive")
    tags = parse_tags(call.headers.get("x-amz-tagging", "")) if replace_tags else version.attributes.tags
    if replace:
        return msgspec.structs.replace(parse_attributes(call.headers), tags=tags)
    kept = {name: text for name, text in version.attributes.headers.items() if name != "website-redirect-location"}
    if redirect := call.headers.get("x-amz-website-redirect-location"):
        kept["website-redirect-location"] = redirect
    return msgspec.structs.replace(
        version.attributes,
        headers=kept,
        tags=tags,
        storage_class=parse_storage_class(call.headers),
        checksum=None,
        part_digests=b"",
    )


def _answer(call: Call, source: CopySource, request: PutRequest, result: PutResult, encryption: Encryption) -> Response:
    committed = result.committed
    headers: Headers = [XML_TYPE, *format_written(committed.version_id, None, encryption=encryption.lines)]
    if call.bucket.settings:
        tags = request.attributes.tags
        headers += format_expiration(call.bucket, call.object_key, result.size, tags, committed.last_modified_ms)
    headers += format_source_version(source)
    document = format_copied("CopyObjectResult", committed.etag, committed.last_modified_ms, result.checksum)
    return Response(200, headers, document)
