"""What a copy reads, opened with the key that its customer brings for it."""

from __future__ import annotations

from cluster.objectstore import CopySource
from s3gw.call import Call
from s3gw.protocol.encryption import parse_source_key


async def open_source(call: Call) -> CopySource:
    """Call.open_copy_source, and the customer's key of the source held against it. CustomerKeyRefused."""
    customer_key = parse_source_key(call.headers)
    source = await call.open_copy_source()
    if customer_key is None and not source.version.attributes.sse:
        return source
    version = call.services.objects.unlock(source.bucket, source.version, customer_key)
    return source._replace(version=version, customer_key=customer_key)
