"""Signed requests over a raw socket: what boto3 would never send, and what exactly comes back."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.s3gw.gateway import Gateway
from tests.s3gw.protocol.signing import Signer

ANSWER_TIMEOUT_S = 60


class Answer(NamedTuple):
    """A whole response; header names lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The Code of an error document."""
        found = re.search(rb"<Code>([^<]*)</Code>", self.body)
        return found[1].decode() if found else ""


def sign(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    name: str = "alice",
    payload: str | None = None,
) -> dict[str, str]:
    """The headers of a request signed by botocore. path: with its query, already encoded as it will be sent.

    payload: x-amz-content-sha256, where it is not the body's digest.
    """
    request = AWSRequest(method, gateway.url + path, data=body, headers=dict(headers or {}))
    credentials = Credentials(name, f"secret-of-{name}")
    Signer(credentials, gateway.services.settings.region, payload).add_auth(request)
    return dict(request.headers.items())


def send(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    name: str | None = "alice",
) -> Answer:
    """One request on a connection of its own. name: None sends it unsigned."""
    signed = sign(gateway, method, path, body, headers, name) if name else dict(headers or {})
    connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.putrequest(method, path, skip_host="Host" in signed, skip_accept_encoding=True)
        signed.setdefault("Content-Length", str(len(body)))
        for header, text in signed.items():
            connection.putheader(header, text)
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def send_bytes(gateway: Gateway, data: bytes, until: bytes) -> bytes:
    """Bytes as they are; what comes back, up to where `until` shows or the server closes."""
    with socket.create_connection((gateway.host, gateway.port), timeout=ANSWER_TIMEOUT_S) as connection:
        connection.sendall(data)
        received = b""
        while until not in received and (chunk := connection.recv(65536)):
            received += chunk
        return received


def object_path(bucket: str, object_key: bytes) -> str:
    """The path of an object, strictly encoded."""
    return f"/{bucket}/{quote(object_key, safe='/~')}"
