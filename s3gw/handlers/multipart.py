"""Create and abort a multipart upload, and store its parts. Source: Amazon S3 API Reference, the actions' pages."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.attributes import parse_attributes
from s3gw.protocol.checksums import (
    DEFAULT_ALGORITHM,
    choose_upload_checksum,
    parse_algorithm,
    parse_requested_checksum,
)
from s3gw.protocol.documents import format_copied, format_upload_created
from s3gw.protocol.encryption import choose_encryption, recall_encryption
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle_answers import format_abortion
from s3gw.protocol.part_list import parse_part_number
from s3gw.protocol.ranges import parse_copy_range
from s3gw.respond import XML_TYPE, Headers, format_written, quoted
from s3gw.source import format_source_version, open_source
from s3gw.version_lock import lock_attributes
from storage.model import Upload

PART_BYTES_MAX = 5 << 30


async def create_multipart_upload(call: Call) -> Response:
    """A new upload that remembers the object's attributes and how its checksum will be made."""
    headers = call.headers
    encryption = choose_encryption(headers, call.bucket)
    attributes = lock_attributes(call, encryption.apply(parse_attributes(headers)), with_default=False)
    attributes = await call.with_acl(attributes)
    named = headers.get("x-amz-checksum-algorithm")
    algorithm, checksum_type = choose_upload_checksum(
        parse_algorithm(named) if named else None, headers.get("x-amz-checksum-type") or None
    )
    upload = await call.services.objects.create_upload(
        call.bucket, call.object_key, call.user.canonical_id, attributes, algorithm, checksum_type, encryption.seal
    )
    lines: Headers = [XML_TYPE, *format_written(None, None, encryption=encryption.lines)]
    if algorithm is not None and checksum_type is not None:
        lines.append((b"x-amz-checksum-algorithm", algorithm.encode("ascii")))
        lines.append((b"x-amz-checksum-type", checksum_type.encode("ascii")))
    lines += format_abortion(call.bucket, call.object_key, upload.initiated_ms)
    return Response(200, lines, format_upload_created(call.bucket.name, call.object_key, upload.upload_id))


async def upload_part(call: Call) -> Response:
    """Store one part; one of the same number before it is replaced."""
    part_number = parse_part_number(call.query.get("partNumber", ""))
    upload = await _read_upload(call)
    _check_algorithm(call, upload)
    encryption = recall_encryption(upload.attributes.sse, call.headers, call.bucket)
    body = call.open_body(upload.checksum_algorithm or DEFAULT_ALGORITHM)
    part = await call.services.objects.put_part(call.bucket, upload, part_number, body, encryption.seal)
    checksum = body.confirmed or part.checksum
    lines = format_written(None, checksum, with_type=False, encryption=encryption.lines)
    return Response(200, [(b"etag", quoted(part.etag)), *lines])


async def upload_part_copy(call: Call) -> Response:
    """Store a part from (a range of) an existing object."""
    part_number = parse_part_number(call.query.get("partNumber", ""))
    upload = await _read_upload(call)
    encryption = recall_encryption(upload.attributes.sse, call.headers, call.bucket)
    source = await open_source(call)
    size = source.version.size
    header = call.headers.get("x-amz-copy-source-range")
    byte_range = parse_copy_range(header, size) if header else None
    start, end = byte_range or (0, size)
    if end - start > PART_BYTES_MAX:
        raise S3Error("EntityTooLarge", ProposedSize=str(end - start), MaxSizeAllowed=str(PART_BYTES_MAX))
    part = await call.services.objects.copy_part(source, byte_range, call.bucket, upload, part_number, encryption.seal)
    lines = [XML_TYPE, *format_written(None, None, encryption=encryption.lines), *format_source_version(source)]
    return Response(200, lines, format_copied("CopyPartResult", part.etag, part.last_modified_ms, part.checksum))


async def abort_multipart_upload(call: Call) -> Response:
    """204, and the parts are released."""
    await call.services.objects.abort_upload(call.bucket, call.object_key, call.query["uploadId"])
    return Response(204)


async def _read_upload(call: Call) -> Upload:
    return await call.services.objects.read_upload(call.bucket, call.object_key, call.query["uploadId"])


def _check_algorithm(call: Call, upload: Upload) -> None:
    """A part's checksum is of the algorithm that the upload was created with; any will do for one created without."""
    requested = parse_requested_checksum(call.raw.headers)
    expected = upload.checksum_algorithm
    if requested is not None and expected is not None and requested.algorithm is not expected:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {expected.lower()},"
            f" actual checksum Type: {requested.algorithm.lower()}",
        )
