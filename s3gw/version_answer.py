"""What answers say of the version that they are about, and what is said to who wants an object and names a marker."""

from __future__ import annotations

from functools import lru_cache

from s3gw.call import Call
from s3gw.protocol.attributes import STORAGE_CLASS_DEFAULT, format_attributes
from s3gw.protocol.dates import format_http_date
from s3gw.protocol.errors import S3Error
from s3gw.protocol.lifecycle_answers import format_expiration
from s3gw.respond import Headers, quoted
from s3gw.short_answer import format_lines
from storage.model import Attributes, Bucket, Version, Versioning

REMEMBERED_MAX = 256
"""content types"""

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


def format_plain(
    bucket: Bucket, version: Version, identity: tuple[bytes, bytes], length: int, encryption: Headers
) -> bytes | None:
    """All headers of a 200 as format_lines makes them, where there is nothing to tell but the type and what every
    answer tells: identity (the values of x-amz-request-id and x-amz-id-2), describe_version, content-length. None for
    a version with more to it."""
    attributes = version.attributes
    if (
        bucket.settings
        or bucket.versioning is not Versioning.UNVERSIONED
        or attributes.headers
        or attributes.user_metadata
        or attributes.tags
        or attributes.storage_class != STORAGE_CLASS_DEFAULT
    ):
        return None
    described = _describe_type(attributes.content_type, tuple(encryption))
    modified = format_http_date(version.last_modified_ms).encode("ascii")
    return _PLAIN % (*identity, version.etag.encode("ascii"), modified, described, length)


_PLAIN = (
    format_lines(
        [(b"x-amz-request-id", b"%b"), (b"x-amz-id-2", b"%b"), (b"etag", quoted("%b")), (b"last-modified", b"%b")]
    )
    + b"%bcontent-length: %d\r\n"
)


@lru_cache(REMEMBERED_MAX)
def _describe_type(content_type: str, encryption: tuple[tuple[bytes, bytes], ...]) -> bytes:
    plain = format_attributes(Attributes(content_type=content_type))
    return format_lines([(b"accept-ranges", b"bytes"), *encryption, *plain])


def describe_unmodified(bucket: Bucket, version: Version) -> Headers:
    """What a 304 says."""
    kept = [line for line in format_attributes(version.attributes) if line[0] in _KEPT_IN_304]
    return identify(bucket, version) + kept


def refuse_marker(call: Call) -> S3Error:
    """Of a request for an object that names a delete marker (AWS API, GetObject)."""
    refusal = S3Error("MethodNotAllowed", Method=call.raw.method, ResourceType="DeleteMarker")
    return refusal.with_headers({"x-amz-delete-marker": "true"})
