"""PutObject. Source: Amazon S3 API Reference, PutObject."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.put_request import format_put, plan_put
from s3gw.respond import quoted


async def put_object(call: Call) -> Response:
    """Store the body as a new version; the conditions are decided in its commit."""
    body = call.open_body()
    request = await plan_put(call, body.proves_itself)
    result = await call.services.objects.put(call.bucket, call.object_key, body, request)
    headers = [(b"etag", quoted(result.committed.etag))]
    return Response(200, headers + format_put(call, request, result))
