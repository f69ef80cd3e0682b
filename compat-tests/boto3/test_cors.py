"""boto3 sets CORS rules; what a browser then asks and is told, over plain HTTP requests."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.clients.endpoint import Endpoint

pytestmark = pytest.mark.same_over_https

RULE = {
    "AllowedOrigins": ["https://*.example"],
    "AllowedMethods": ["GET", "PUT"],
    "AllowedHeaders": ["*"],
    "ExposeHeaders": ["ETag"],
    "MaxAgeSeconds": 60,
}
ORIGIN = "https://app.example"


def ask(endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
    """Status and headers of one unsigned request, as a browser sends it."""
    context = ssl.create_default_context(cafile=str(endpoint.ca_file)) if endpoint.ca_file else None
    request = urllib.request.Request(url, method=method, headers=dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.headers


@pytest.mark.s3_operation("PutBucketCors", "GetBucketCors", "DeleteBucketCors")
def test_a_browser_is_let_in(s3: Any, bucket: str, endpoint: Endpoint) -> None:
    """The preflight of a presigned request and the request itself, until the rules are deleted."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [RULE]})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == [RULE]
    signer = endpoint.boto3_client(signature_version="s3v4")
    url = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    question = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-amz-meta-a",
    }
    status, headers = ask(endpoint, "OPTIONS", url, question)
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert headers["access-control-allow-headers"] == "x-amz-meta-a"
    status, headers = ask(endpoint, "GET", url, {"Origin": ORIGIN})
    assert (status, headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert headers["access-control-expose-headers"] == "ETag"
    status, headers = ask(endpoint, "GET", f"{endpoint.url}/{bucket}/k", {"Origin": ORIGIN})
    assert (status, headers["access-control-allow-origin"]) == (403, ORIGIN)
    status, headers = ask(endpoint, "OPTIONS", url, question | {"Origin": "https://elsewhere.org"})
    assert (status, headers["access-control-allow-origin"]) == (403, None)
    s3.delete_bucket_cors(Bucket=bucket)
    assert ask(endpoint, "OPTIONS", url, question)[0] == 403
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)
