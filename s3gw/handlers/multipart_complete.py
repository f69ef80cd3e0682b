"""CompleteMultipartUpload. Source: Amazon S3 API Reference, CompleteMultipartUpload.

Completing moves no byte, so the answer comes when the commit is durable and its status is the truth; nothing is sent
early. A retry of a completed upload gets the same answer again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import msgspec

from cluster.objectstore import Seal
from s3gw.call import Call, Response
from s3gw.protocol.checksums import DEFAULT_ALGORITHM, parse_requested_checksum
from s3gw.protocol.conditions import parse_write_conditions
from s3gw.protocol.documents import format_upload_completed
from s3gw.protocol.encryption import CUSTOMER, format_encryption, parse_customer_key
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle_answers import format_expiration
from s3gw.protocol.list_page import PART_NUMBER_MAX
from s3gw.protocol.object_attributes import pack_part_digests
from s3gw.protocol.part_list import (
    ListedPart,
    choose_parts,
    combine_checksums,
    combine_etags,
    drop_other_checksums,
    parse_part_list,
)
from s3gw.respond import XML_TYPE, format_written
from s3gw.version_lock import lock_completed
from storage.base.errors import CustomerKeyMissing, NoSuchKey, NoSuchUpload, NoSuchVersion
from storage.model import Checksum, ChecksumAlgorithm, ChecksumType, PartInfo, Upload

OBJECT_BYTES_MAX = 50 << 40


async def complete_multipart_upload(call: Call) -> Response:
    """Make the listed parts the object."""
    upload_id = call.query["uploadId"]
    conditions = parse_write_conditions(call.headers)
    customer_key = parse_customer_key(call.headers)
    listed = parse_part_list(await call.read_document(checksum_is_of_object=True))
    objects = call.services.objects
    try:
        page = await objects.list_parts(call.bucket, call.object_key, upload_id, 0, PART_NUMBER_MAX, customer_key)
    except NoSuchUpload:
        answer = await _answer_again(call, upload_id, listed)
        if answer is None:
            raise
        return answer
    upload = page.upload
    if upload.checksum_algorithm is None:
        listed = drop_other_checksums(listed, DEFAULT_ALGORITHM)
    elif upload.attributes.sse.get("mode") == CUSTOMER and customer_key is None:
        raise CustomerKeyMissing  # the checksum that was asked for cannot be told without it
    parts = choose_parts(listed, {part.part_number: part for part in page.parts}, upload_id)
    _check_size(call, sum(part.size for part in parts))
    checksum = _combine(upload, parts)
    _check_checksum(call, upload, checksum)
    digests = b"" if upload.attributes.sse.get("mode") == CUSTOMER else pack_part_digests(parts, checksum)
    attributes = msgspec.structs.replace(upload.attributes, checksum=checksum, part_digests=digests)
    attributes = lock_completed(call, attributes)
    owner_id, attributes = call.choose_owner(upload.owner_id, attributes)
    upload = msgspec.structs.replace(upload, owner_id=owner_id)
    etag = combine_etags([part.etag for part in parts])
    committed = await objects.complete_upload(call.bucket, upload, parts, etag, attributes, conditions, customer_key)
    answer = _answer(call, committed.version_id, committed.etag, checksum, attributes.sse)
    if call.bucket.settings:
        answer.headers.extend(
            format_expiration(
                call.bucket,
                call.object_key,
                sum(part.size for part in parts),
                attributes.tags,
                committed.last_modified_ms,
            )
        )
    return answer


async def _answer_again(call: Call, upload_id: str, listed: Sequence[ListedPart]) -> Response | None:
    """What the upload answered when it was completed; None when it never was, or not with these parts."""
    objects = call.services.objects
    completed = await objects.find_completed_upload(call.bucket, call.object_key, upload_id)
    try:
        if completed is None or combine_etags([item.etag for item in listed]) != completed.etag:
            return None
    except ValueError:
        return None
    checksum: Checksum | None = None
    sse: Mapping[str, str] = {}
    with contextlib.suppress(NoSuchKey, NoSuchVersion, CustomerKeyMissing):  # deleted since; it was completed all along
        version = (await objects.head(call.bucket, call.object_key, completed.version_id)).version
        if version.etag == completed.etag and version.last_modified_ms == completed.last_modified_ms:
            if sse := version.attributes.sse:
                version = objects.unlock(call.bucket, version, parse_customer_key(call.headers))
            checksum = version.attributes.checksum
    return _answer(call, completed.version_id, completed.etag, checksum, sse)


def _combine(upload: Upload, parts: Sequence[PartInfo]) -> Checksum | None:
    """The object's checksum as asked for at Create; CRC64NVME of the whole when nothing was asked for."""
    algorithm, checksum_type = upload.checksum_algorithm, upload.checksum_type
    if algorithm is None or checksum_type is None:
        return combine_checksums(parts, DEFAULT_ALGORITHM, ChecksumType.FULL_OBJECT)
    return combine_checksums(parts, algorithm, checksum_type)


def _check_size(call: Call, size: int) -> None:
    if size > OBJECT_BYTES_MAX:
        raise S3Error("EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(OBJECT_BYTES_MAX))
    expected = call.headers.get("x-amz-mp-object-size")
    if expected and expected.strip() != str(size):
        raise S3Error(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {expected[:32]} does not match what was computed: "
            f"{size}",
        )


def _check_checksum(call: Call, upload: Upload, computed: Checksum | None) -> None:
    """The checksum of the whole object that the client may send along."""
    kind = call.headers.get("x-amz-checksum-type")
    if kind and (upload.checksum_type or ChecksumType.FULL_OBJECT) != kind.strip().upper():
        raise S3Error(
            "InvalidRequest",
            f"The upload was created using the {upload.checksum_type or ChecksumType.FULL_OBJECT} checksum mode. The"
            " complete request must use the same checksum mode.",
        )
    value, algorithm = _find_whole_checksum(call)
    if value is None:
        return
    if computed is None or computed.algorithm is not algorithm or computed.value.partition("-")[0] != value:
        raise S3Error("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def _find_whole_checksum(call: Call) -> tuple[str | None, ChecksumAlgorithm | None]:
    """x-amz-checksum-* of a Complete speaks of the object, not of the XML. A composite one may carry its `-N`."""
    bare = {
        name: value.partition(b"-")[0] if name.startswith(b"x-amz-checksum-") else value
        for name, value in call.raw.headers.items()
    }
    requested = parse_requested_checksum(bare)
    return (requested.value, requested.algorithm) if requested else (None, None)


def _answer(
    call: Call, version_id: str | None, etag: str, checksum: Checksum | None, sse: Mapping[str, str]
) -> Response:
    document = format_upload_completed(call.object_url, call.bucket.name, call.object_key, etag, checksum)
    encryption = format_encryption(sse, Seal(customer_key=parse_customer_key(call.headers)) if sse else None)
    return Response(200, [XML_TYPE, *format_written(version_id, None, encryption=encryption)], document)
