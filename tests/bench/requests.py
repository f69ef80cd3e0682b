"""Signed requests made beforehand with botocore's signers, so that no client library is inside a measurement."""

from __future__ import annotations

import hashlib
import hmac
import http.client
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.clients.endpoint import REGION, Endpoint

PRESIGNED_LIFETIME_S = 24 * 3600
ANSWER_TIMEOUT_S = 300


def presign(endpoint: Endpoint, method: str, path: str) -> str:
    """The path and query of a presigned request; `path` is percent-encoded and may have a query of its own."""
    credentials = Credentials(endpoint.access_key_id, endpoint.secret_access_key)
    request = AWSRequest(method, f"{endpoint.url}{path}")
    S3SigV4QueryAuth(credentials, "s3", REGION, expires=PRESIGNED_LIFETIME_S).add_auth(request)
    parts = urlsplit(request.url)
    return f"{parts.path!s}?{parts.query!s}"


def presign_all(endpoint: Endpoint, method: str, paths: Sequence[str]) -> Iterator[str]:
    """`presign` of each, as of one moment; of paths without a query. A tenth of the time: there are millions in a
    comparison, and they differ in path and signature alone."""
    if not paths:
        return
    query = presign(endpoint, method, paths[0]).partition("?")[2].partition("&X-Amz-Signature=")[0]
    fields = dict(parse_qsl(query))
    scope = fields["X-Amz-Credential"].partition("/")[2]
    key = f"AWS4{endpoint.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    beginning = f"{fields['X-Amz-Algorithm']}\n{fields['X-Amz-Date']}\n{scope}\n"
    end = f"\n{query}\nhost:{endpoint.host}\n\nhost\nUNSIGNED-PAYLOAD"
    for path in paths:
        asked = hashlib.sha256(f"{method}\n{path}{end}".encode()).hexdigest()
        signature = hmac.digest(key, f"{beginning}{asked}".encode(), "sha256").hex()
        yield f"{path}?{query}&X-Amz-Signature={signature}"


def object_path(bucket: str, object_key: str) -> str:
    """The percent-encoded path-style path of an object."""
    return f"/{bucket}/{quote(object_key)}"


class SignedConnection:
    """One kept-alive connection that signs each request by header. Any status but 2xx raises."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._credentials = Credentials(endpoint.access_key_id, endpoint.secret_access_key)
        self._connection = http.client.HTTPConnection(endpoint.host, timeout=ANSWER_TIMEOUT_S)

    def sign(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """The headers of a signed request."""
        request = AWSRequest(method, f"{self._endpoint.url}{path}", dict(headers or {}), body)
        S3SigV4Auth(self._credentials, "s3", REGION).add_auth(request)
        return dict(request.headers.items())

    def send(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        signed: bool = False,
    ) -> bytes:
        """Send and read the whole answer; `signed` says that `headers` carry the signature already."""
        complete = dict(headers or {}) if signed else self.sign(method, path, body, headers)
        self._connection.request(method, path, body, complete)
        answer = self._connection.getresponse()
        received = answer.read()
        if not 200 <= answer.status < 300:
            raise RuntimeError(f"{method} {path.partition('?')[0]}: {answer.status} {received[:300]!r}")
        return received

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
