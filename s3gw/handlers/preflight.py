"""A browser's question before a request from another origin. Source: Amazon S3 User Guide, "Using CORS"."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.cors import (
    CORS_SETTING,
    METHODS,
    VARY,
    evaluate_cors,
    format_grant,
    parse_requested_headers,
    read_cors,
)
from s3gw.protocol.errors import S3Error

_NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evaluation of Origin, request method /"
    " Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)


async def preflight(call: Call) -> Response:
    """Nobody signs it. 200 with what the first fitting rule grants, 403 when none does."""
    headers = call.headers
    origin, method = headers.get("origin"), headers.get("access-control-request-method")
    if not origin:
        raise S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    if method not in METHODS:
        raise S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method or 'null'}")
    resource_type = "OBJECT" if call.object_key else "BUCKET"
    stored = call.bucket.settings.get(CORS_SETTING) if call.route.bucket else None
    if stored is None:
        raise S3Error("AccessForbidden", Method=method, ResourceType=resource_type)
    requested = parse_requested_headers(headers.get("access-control-request-headers", ""))
    grant = None if requested is None else evaluate_cors(read_cors(stored), origin, method, requested)
    if grant is None or requested is None:
        refusal = S3Error("AccessForbidden", _NOT_ALLOWED, Method=method, ResourceType=resource_type)
        raise refusal.with_headers({VARY[0].decode(): VARY[1].decode()})
    return Response(200, format_grant(grant, requested))
