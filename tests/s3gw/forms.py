"""Browsers' forms, made and signed by hand: what boto3 does not sign, and every way of sending one wrongly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

BOUNDARY = "----FrostbyteFormBoundary7MA4YWxk"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

Fields = Mapping[str, str] | Sequence[tuple[str, str]]


def encode_form(
    fields: Fields, file: bytes | None = b"", filename: str | None = "f.txt", after: Fields = (), end: bytes = b"\r\n"
) -> bytes:
    """The body of a form. file: None for none. after: fields behind it. end: what follows the closing delimiter."""
    parts = [_field(name, text) for name, text in _pairs(fields)]
    if file is not None:
        named = f'; filename="{filename}"' if filename is not None else ""
        head = f'Content-Disposition: form-data; name="file"{named}\r\nContent-Type: text/plain\r\n\r\n'
        parts.append(head.encode() + file)
    parts += [_field(name, text) for name, text in _pairs(after)]
    delimiter = b"--" + BOUNDARY.encode()
    return b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--" + end


def make_policy(conditions: Sequence[Any], expires_in_s: float = 600, **extra: Any) -> str:
    """A policy document in base64."""
    expiration = datetime.now(UTC) + timedelta(seconds=expires_in_s)
    document = {"expiration": f"{expiration:%Y-%m-%dT%H:%M:%SZ}", "conditions": list(conditions)} | extra
    return base64.b64encode(json.dumps(document).encode()).decode()


def sign_v2(policy: str, name: str = "alice") -> dict[str, str]:
    """The fields of a SigV2 form."""
    signature = base64.b64encode(hmac.digest(f"secret-of-{name}".encode(), policy.encode(), "sha1")).decode()
    return {"AWSAccessKeyId": name, "policy": policy, "signature": signature}


def sign_v4(
    conditions: Sequence[Any], name: str = "alice", region: str = "us-east-1", expires_in_s: float = 600
) -> dict[str, str]:
    """The fields of a SigV4 form, whose policy speaks of them."""
    now = datetime.now(UTC)
    fields = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{name}/{now:%Y%m%d}/{region}/s3/aws4_request",
        "x-amz-date": f"{now:%Y%m%dT%H%M%SZ}",
    }
    policy = make_policy([*conditions, *({field: text} for field, text in fields.items())], expires_in_s)
    key = f"AWS4secret-of-{name}".encode()
    for word in (f"{now:%Y%m%d}", region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), hashlib.sha256)
    signature = hmac.new(key, policy.encode(), hashlib.sha256).hexdigest()
    return fields | {"policy": policy, "x-amz-signature": signature}


def _pairs(fields: Fields) -> list[tuple[str, str]]:
    return list(fields.items()) if isinstance(fields, Mapping) else list(fields)


def _field(name: str, text: str) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode()
