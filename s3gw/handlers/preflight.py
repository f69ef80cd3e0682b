"""A browser's question before a request from another origin. Source: Amazon S3 User Guide, "Using CORS"."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.errors import S3Error


async def preflight(call: Call) -> Response:
    """Nobody signs it. No bucket has a CORS configuration yet, so the answer is no."""
    headers = call.headers
    if not headers.get("origin"):
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    raise S3Error("AccessForbidden", Method=headers.get("access-control-request-method", ""), ResourceType="BUCKET")
