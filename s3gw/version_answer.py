"""What answers say of the version that they are about, and what is said to who wants an object and names a marker."""

from __future__ import annotations

from s3gw.call import Call
from s3gw.protocol.errors import S3Error
from s3gw.respond import Headers
from storage.model import Bucket, Versioning


def identify_version(bucket: Bucket, version_id: str) -> Headers:
    """x-amz-version-id, but in a bucket that was never versioned."""
    if bucket.versioning is Versioning.UNVERSIONED:
        return []
    return [(b"x-amz-version-id", version_id.encode("ascii"))]


def refuse_marker(call: Call) -> S3Error:
    """Of a request for an object that names a delete marker (AWS API, GetObject)."""
    refusal = S3Error("MethodNotAllowed", Method=call.raw.method, ResourceType="DeleteMarker")
    return refusal.with_headers({"x-amz-delete-marker": "true"})
