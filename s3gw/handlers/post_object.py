"""PostObject: an upload from a browser's form. Source: Amazon S3 API Reference, POST Object."""

from __future__ import annotations

from s3gw.call import Call, Response
from s3gw.protocol.errors import S3Error


async def post_object(call: Call) -> Response:
    """Forms are not read yet; once read, Call.authenticate_as says who sent one and whether that is allowed."""
    raise S3Error("NotImplemented", f"{call.raw.method} form is not implemented")
