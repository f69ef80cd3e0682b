"""A sub-resource document of the request's bucket as it is kept: read, replaced, taken away."""

from __future__ import annotations

from s3gw.call import Call
from s3gw.protocol.errors import S3Error


def read_setting(call: Call, name: str, absent_code: str) -> bytes:
    """What is stored under this name; the S3Error of this code where nothing is."""
    stored = call.bucket.settings.get(name)
    if stored is None:
        raise S3Error(absent_code, BucketName=call.bucket.name)
    return stored


async def store_setting(call: Call, name: str, document: bytes | None) -> None:
    """Replace it, or (None) take it away; what is the same already is not written, so every cache stays valid."""
    if call.bucket.settings.get(name) != document:
        await call.services.directory.put_setting(call.bucket, name, document)
