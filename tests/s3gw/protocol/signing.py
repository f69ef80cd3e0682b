"""The other side of SigV4 for tests: botocore's own signers, and what they make as the server sees it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from s3gw.protocol.claims import Claim, RawRequest, parse_claim
from s3gw.protocol.sigv4 import SigningKeys, Verified, verify_claim

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"
HOST = "127.0.0.1:9000"


class Signer(S3SigV4Auth):
    """botocore's S3 signer with a chosen value of x-amz-content-sha256."""

    def __init__(self, credentials: Credentials, region: str, payload: str | None) -> None:
        super().__init__(credentials, "s3", region)
        self._payload = payload

    def payload(self, request: AWSRequest) -> Any:
        return self._payload or super().payload(request)


def sign_by_header(
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    payload: str | None = None,
    secret: str = SECRET_ACCESS_KEY,
    region: str = REGION,
) -> RawRequest:
    """path: as on the wire, query included. payload: x-amz-content-sha256, where it is not the body's digest."""
    request = AWSRequest(method=method, url=f"http://{HOST}{path}", headers=dict(headers or {}), data=body)
    Signer(Credentials(ACCESS_KEY_ID, secret), region, payload).add_auth(request)
    return to_raw(request)


def presign(
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    expires_s: int = 3600,
    secret: str = SECRET_ACCESS_KEY,
    region: str = REGION,
) -> RawRequest:
    """A presigned request; extra headers are signed, and sent."""
    request = AWSRequest(method=method, url=f"http://{HOST}{path}", headers=dict(headers or {}))
    S3SigV4QueryAuth(Credentials(ACCESS_KEY_ID, secret), "s3", region, expires=expires_s).add_auth(request)
    return to_raw(request)


def to_raw(request: AWSRequest) -> RawRequest:
    """What the server sees of a botocore request."""
    parts = urlsplit(request.url)
    headers = {name.lower().encode(): str(value).encode() for name, value in request.headers.items()}
    headers[b"host"] = HOST.encode()
    return RawRequest(request.method, parts.path.encode(), parts.query.encode(), headers, HOST.encode())


def claim_of(request: RawRequest, region: str | None = REGION) -> Claim:
    """The claim of a request that has one."""
    claim = parse_claim(request, region)
    assert claim is not None
    return claim


def verify(request: RawRequest, secret: str = SECRET_ACCESS_KEY, age_s: float = 0.0) -> Verified:
    """Parse and verify, age_s after the request was signed."""
    claim = claim_of(request)
    return verify_claim(request, claim, secret, claim.time_s + age_s, SigningKeys())
