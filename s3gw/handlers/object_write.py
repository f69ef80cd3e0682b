"""PutObject. Source: Amazon S3 API Reference, PutObject."""

from __future__ import annotations

from cluster.objectstore import PutRequest
from s3gw.call import Call, Response
from s3gw.protocol.attributes import parse_attributes
from s3gw.protocol.conditions import parse_write_conditions
from s3gw.respond import format_written, quoted
from s3gw.version_lock import lock_attributes, require_proof


async def put_object(call: Call) -> Response:
    """Store the body as a new version; the conditions are decided in its commit."""
    attributes = await lock_attributes(call, parse_attributes(call.headers))
    conditions = parse_write_conditions(call.headers)
    body = call.open_body()
    require_proof(attributes, body.proves_itself)
    result = await call.services.objects.put(
        call.bucket, call.object_key, body, PutRequest(call.user.canonical_id, attributes, conditions)
    )
    headers = [(b"etag", quoted(result.committed.etag))]
    return Response(200, headers + format_written(result.committed.version_id, result.checksum))
