"""GetObject and HeadObject: conditions, then range, then bytes. Source: Amazon S3 API Reference, the two actions.

A GET sends its headers only after the first block was opened, so that whatever is wrong with the object's first replica
set is still an error with a status; later failures cut the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from cluster.objectstore import ObjectReading, Seal
from s3gw.call import Call, Response
from s3gw.protocol.attributes import parse_response_overrides
from s3gw.protocol.conditions import Verdict, evaluate_if_range, evaluate_read
from s3gw.protocol.dates import format_http_date
from s3gw.protocol.encryption import format_encryption, parse_customer_key, parse_read_key
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_attributes import find_checksum
from s3gw.protocol.part_list import parse_part_number
from s3gw.protocol.principals import is_anonymous
from s3gw.protocol.ranges import format_content_range, parse_range
from s3gw.protocol.versions import find_version_id
from s3gw.respond import Headers, format_checksum
from s3gw.version_answer import describe_unmodified, describe_version, refuse_marker
from s3gw.version_lock import show_lock
from storage.base.errors import Corrupt, InvalidPart
from storage.model import ByteRange

_CONDITIONS = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")


async def get_object(call: Call) -> Response | None:
    """The bytes of a version, of a range or of a part. None: sent already."""
    byte_range, part_number = _parse_selection(call)
    version_id, customer_key = find_version_id(call.query), parse_read_key(call.headers)
    open_version = call.services.objects.open
    try:
        async with open_version(
            call.bucket, call.object_key, version_id, byte_range, part_number, customer_key
        ) as reading:
            if not _is_range_stale(call, reading, byte_range):
                return await _answer(call, reading, byte_range, part_number)
    except InvalidPart:
        raise _no_part(part_number) from None
    async with open_version(call.bucket, call.object_key, version_id, None, None, customer_key) as reading:
        return await _answer(call, reading, None, None)


async def head_object(call: Call) -> Response:
    """What GET would answer, without the bytes."""
    byte_range, part_number = _parse_selection(call)
    customer_key = parse_read_key(call.headers)
    objects = call.services.objects
    try:
        reading = await objects.head(call.bucket, call.object_key, find_version_id(call.query), part_number)
    except InvalidPart:
        raise _no_part(part_number) from None
    if customer_key is not None or reading.version.attributes.sse:
        reading.version = objects.unlock(call.bucket, reading.version, customer_key)
    if _is_range_stale(call, reading, byte_range):
        byte_range = None
    refused = _evaluate(call, reading)
    if refused is not None:
        return refused
    start, end = reading.start, reading.end
    if byte_range is not None:
        span = byte_range.resolve(reading.version.size)
        if span is None:
            raise _unsatisfiable(call, reading.version.size)
        start, end = span
    status, headers = _describe(call, reading, byte_range is not None, part_number, start, end)
    headers += await show_lock(call, reading.version)
    headers.append((b"content-length", b"%d" % (end - start)))
    return Response(status, headers)


def _parse_selection(call: Call) -> tuple[ByteRange | None, int | None]:
    """What of the object is wanted: a range or a part, never both."""
    byte_range = parse_range(call.headers.get("range"))
    if "partNumber" not in call.query:
        return byte_range, None
    if "range" in call.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    return None, parse_part_number(call.query["partNumber"])


def _is_range_stale(call: Call, reading: ObjectReading, byte_range: ByteRange | None) -> bool:
    """Whether If-Range means another state of the object, so that the range is none and the whole is wanted."""
    condition = call.headers.get("if-range")
    if byte_range is None or condition is None or reading.version.is_marker:
        return False
    return not evaluate_if_range(condition, reading.version.etag, reading.version.last_modified_ms)


async def _answer(
    call: Call, reading: ObjectReading, byte_range: ByteRange | None, part_number: int | None
) -> Response | None:
    """Conditions, then the bytes. None: sent already."""
    refused = _evaluate(call, reading)
    if refused is not None:
        return refused
    status, headers = _describe(call, reading, byte_range is not None, part_number)
    headers += await show_lock(call, reading.version)
    length = reading.end - reading.start
    blocks = reading.__aiter__()
    first = await anext(blocks, b"") if length else b""
    if len(first) == length:
        return Response(status, headers, first)
    await _send_blocks(call, status, headers, length, first, blocks)
    return None


def _evaluate(call: Call, reading: ObjectReading) -> Response | None:
    """Markers, conditions and the range, in this order. A 304 is an answer, everything else raises."""
    version = reading.version
    call.confirm(version)
    if version.is_marker:
        raise refuse_marker(call).with_headers(
            {
                "x-amz-version-id": version.version_id,
                "last-modified": format_http_date(version.last_modified_ms),
                "allow": "DELETE",
            }
        )
    headers = call.headers
    if any(name in headers for name in _CONDITIONS):
        verdict = evaluate_read(headers, version.etag, version.last_modified_ms)
        if verdict is Verdict.FAILED:
            condition = "If-Match" if "if-match" in headers else "If-Unmodified-Since"
            raise S3Error("PreconditionFailed", Condition=condition)
        if verdict is Verdict.NOT_MODIFIED:
            return Response(304, describe_unmodified(call.bucket, version))
    if not reading.satisfiable:
        raise _unsatisfiable(call, version.size)
    return None


def _no_part(part_number: int | None) -> S3Error:
    """400 InvalidPart, as Ceph has it; AWS says 416 InvalidPartNumber."""
    return S3Error("InvalidPart", "The requested partnumber is not satisfiable", PartNumberRequested=str(part_number))


def _unsatisfiable(call: Call, size: int) -> S3Error:
    return S3Error(
        "InvalidRange", RangeRequested=call.headers.get("range", ""), ActualObjectSize=str(size)
    ).with_headers({"content-range": f"bytes */{size}"})


def _describe(
    call: Call,
    reading: ObjectReading,
    ranged: bool,
    part_number: int | None,
    start: int | None = None,
    end: int | None = None,
) -> tuple[int, Headers]:
    """Status and headers, but for the length."""
    version = reading.version
    start = reading.start if start is None else start
    end = reading.end if end is None else end
    sse = version.attributes.sse
    encryption = format_encryption(sse, Seal(customer_key=parse_customer_key(call.headers)) if sse else None)
    headers = describe_version(call.bucket, version, encryption, is_current=reading.is_current)
    status = 200
    if ranged or part_number is not None:
        status = 206
        if version.size:
            headers.append((b"content-range", format_content_range(start, end, version.size).encode("ascii")))
    if part_number is not None and version.part_count:
        headers.append((b"x-amz-mp-parts-count", b"%d" % version.part_count))
    if not ranged and call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED":
        headers += format_checksum(find_checksum(version, part_number))
    overrides = parse_response_overrides(call.query) if call.query else None
    if overrides:
        if is_anonymous(call.user):
            raise S3Error(
                "InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests."
            )
        headers = [line for line in headers if line[0] not in overrides] + list(overrides.items())
    return status, headers


async def _send_blocks(
    call: Call, status: int, headers: Headers, length: int, first: bytes, blocks: AsyncIterator[bytes]
) -> None:
    """Stream a body that is longer than its first block."""
    if not first:
        raise Corrupt("the object has fewer bytes than its record says")
    responder = call.responder
    await responder.start(status, headers, length)
    try:
        await responder.write(first)
        async for block in blocks:
            await responder.write(block)
    finally:
        responder.close()
    if responder.bytes_sent != length:
        raise Corrupt("the object has fewer bytes than its record says")
    await responder.end()
