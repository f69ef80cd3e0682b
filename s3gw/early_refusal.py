"""Refusals of what is no request yet, or one too many: S3 documents without an id, from below the application."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import escape


def render_refusal(error: S3Error, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole response; the connection closes behind it."""
    document = _render_document(error)
    headers = [
        *default_headers,
        (b"content-type", b"application/xml"),
        (b"content-length", b"%d" % len(document)),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[error.status] + lines + b"\r\n" + document


async def slow_down(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that is too busy."""
    error = S3Error("SlowDown")
    document = b"" if scope["method"] == "HEAD" else _render_document(error)
    headers = [
        (b"content-type", b"application/xml"),
        (b"content-length", b"%d" % len(document)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": document})


def _render_document(error: S3Error) -> bytes:
    extra = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in error.extra.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>{extra}</Error>"
    ).encode()
