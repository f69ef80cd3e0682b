"""boto3: forms that it signs for browsers, sent as a browser sends them, and what they made read back."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.s3gw.forms import CONTENT_TYPE, encode_form

pytestmark = pytest.mark.same_over_https

FORM_TIMEOUT_S = 30


def send(
    endpoint: Endpoint, made: dict[str, Any], file: bytes, filename: str = "f.txt", **after: str
) -> tuple[int, bytes]:
    """Post the form with a button behind its file → status and body."""
    form = encode_form(made["fields"], file, filename, after=after)
    request = urllib.request.Request(made["url"], form, {"Content-Type": CONTENT_TYPE})
    context = ssl.create_default_context(cafile=str(endpoint.ca_file)) if endpoint.ca_file else None
    try:
        with urllib.request.urlopen(request, timeout=FORM_TIMEOUT_S, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


@pytest.mark.s3_operation("PostObject")
def test_a_form_makes_an_object(endpoint: Endpoint, s3: Any, bucket: str) -> None:
    """Of many chunks, under the browser's file name, with what its fields say."""
    body = os.urandom(9_000_000)
    made = s3.generate_presigned_post(
        bucket,
        "up/${filename}",
        Fields={"Content-Type": "image/png", "x-amz-meta-a": "b"},
        Conditions=[["starts-with", "$Content-Type", "image/"], {"x-amz-meta-a": "b"}],
    )
    status, answer = send(endpoint, made, body, "a b.png", submit="Upload")
    assert (status, answer) == (204, b"")
    got = s3.get_object(Bucket=bucket, Key="up/a b.png")
    assert (got["ContentType"], got["Metadata"]) == ("image/png", {"a": "b"})
    assert hashlib.sha256(got["Body"].read()).digest() == hashlib.sha256(body).digest()


def test_a_form_is_kept_to_its_policy(endpoint: Endpoint, s3: Any, bucket: str) -> None:
    """Too long, or of another key: refused, and nothing is stored."""
    made = s3.generate_presigned_post(bucket, "k", Conditions=[["content-length-range", 0, 10]])
    status, answer = send(endpoint, made, b"x" * 1_000_000)
    assert (status, b"<Code>EntityTooLarge</Code>" in answer) == (400, True)
    made["fields"]["key"] = "other"
    status, answer = send(endpoint, made, b"x")
    assert (status, b"<Code>AccessDenied</Code>" in answer) == (403, True)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
