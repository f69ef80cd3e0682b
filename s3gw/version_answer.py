"""What answers say of the version that they are about, and what is said to who wants an object and names a marker."""

from __future__ import annotations

from s3gw.call import Call
from s3gw.protocol.attributes import format_attributes
from s3gw.protocol.dates import format_http_date
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle_answers import format_expiration
from s3gw.respond import Headers, quoted
from storage.model import Bucket, Version, Versioning

_KEPT_IN_304 = (b"cache-control", b"expires")


def identify_version(bucket: Bucket, version_id: str) -> Headers:
    """x-amz-version-id, but in a bucket that was never versioned."""
    if bucket.versioning is Versioning.UNVERSIONED:
        return []
    return [(b"x-amz-version-id", version_id.encode("ascii"))]


def identify(bucket: Bucket, version: Version) -> Headers:
    """ETag, date and id."""
    return [
        (b"etag", quoted(version.etag)),
        (b"last-modified", format_http_date(version.last_modified_ms).encode("ascii")),
        *identify_version(bucket, version.version_id),
    ]


def describe_version(bucket: Bucket, version: Version, encryption: Headers, *, is_current: bool) -> Headers:
    """What every GET and HEAD says of the version, whatever of it was asked for."""
    headers = identify(bucket, version)
    headers.append((b"accept-ranges", b"bytes"))
    headers += encryption
    headers += format_attributes(version.attributes)
    if bucket.settings and is_current:
        tags, written_ms = version.attributes.tags, version.last_modified_ms
        headers += format_expiration(bucket, version.object_key, version.size, tags, written_ms)
    return headers


def describe_unmodified(bucket: Bucket, version: Version) -> Headers:
    """What a 304 says."""
    kept = [line for line in format_attributes(version.attributes) if line[0] in _KEPT_IN_304]
    return identify(bucket, version) + kept


def refuse_marker(call: Call) -> S3Error:
    """Of a request for an object that names a delete marker (AWS API, GetObject)."""
    refusal = S3Error("MethodNotAllowed", Method=call.raw.method, ResourceType="DeleteMarker")
    return refusal.with_headers({"x-amz-delete-marker": "true"})
