"""Clients that send or take a body at their own pace: raw sockets and presigned URLs."""

from __future__ import annotations

import http.client
import socket
from types import TracebackType
from urllib.parse import urlsplit

from tests.probe.server import Server

ANSWER_TIMEOUT_S = 60.0


def presign(server: Server, operation: str, bucket: str, object_key: str) -> str:
    """A URL that needs no headers."""
    client = server.client(signature_version="s3v4")
    url: str = client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": object_key}, ExpiresIn=3600)
    return url


class Exchange:
    """One request on a connection of its own; closed without ceremony at the end."""

    def __init__(self, url: str, method: str, length: int | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=ANSWER_TIMEOUT_S)
        head = f"{method} {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        if length is not None:
            head += f"Content-Length: {length}\r\n"
        self._socket.sendall(f"{head}\r\n".encode())
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> Exchange:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """In the middle of whatever is going on."""
        self._socket.close()

    def send(self, body: bytes) -> None:
        """Some of the body."""
        self._socket.sendall(body)

    def status(self) -> int:
        """Of the answer, which is waited for; 0 when the connection ends without one."""
        self._response = http.client.HTTPResponse(self._socket)
        try:
            self._response.begin()
        except (http.client.HTTPException, OSError):
            return 0
        return self._response.status

    def read(self, size: int = -1) -> bytes:
        """Some of the answer's body, or the rest. http.client.IncompleteRead when it is short."""
        assert self._response is not None
        return self._response.read() if size < 0 else self._response.read(size)
