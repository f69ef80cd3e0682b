"""GetObjectAttributes and GetObjectTorrent. Source: Amazon S3 API Reference, the actions of these names."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.dates import format_http_date
from s3gw.protocol.encryption import parse_read_key
from s3gw.protocol.errors import S3Error
from s3gw.protocol.object_attributes import format_object_attributes, parse_object_attributes
from s3gw.protocol.versions import find_version_id
from s3gw.respond import XML_TYPE
from s3gw.version_answer import identify_version, refuse_marker


async def get_object_attributes(call: Call) -> Response:
    """Whatever of ETag, checksum, parts, storage class and size is asked for, by one read of the metadata."""
    query = parse_object_attributes(call.headers)
    version_id = find_version_id(call.query)
    opened = call.services.objects.open(
        call.bucket, call.object_key, version_id, customer_key=parse_read_key(call.headers)
    )
    async with opened as reading:  # its bytes are not asked for, so no datanode is
        version = reading.version
        call.confirm(version)
        if version.is_marker:
            raise refuse_marker(call).with_headers({"x-amz-version-id": version.version_id, "allow": "DELETE"})
        modified = (b"last-modified", format_http_date(version.last_modified_ms).encode("ascii"))
        document = format_object_attributes(query, version, reading.extents)
        return Response(200, [XML_TYPE, modified, *identify_version(call.bucket, version.version_id)], document)


async def get_object_torrent(call: Call) -> Response:
    """404, as for an object of which no torrent was made."""
    reading = await call.services.objects.head(call.bucket, call.object_key, find_version_id(call.query))
    call.confirm(reading.version)
    raise S3Error("NoSuchKey", "The object has no torrent.", Key=call.object_key.decode("utf-8", "replace"))
