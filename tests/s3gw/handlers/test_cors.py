"""CORS through the socket: preflights, and what answers of every kind tell a browser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import Answer, send
from tests.s3gw.refusal import refusal

ORIGIN = "https://app.example"
RULES: list[dict[str, Any]] = [
    {
        "ID": "app",
        "AllowedOrigins": ["https://*.example"],
        "AllowedMethods": ["GET", "PUT"],
        "AllowedHeaders": ["content-type", "x-amz-*"],
        "ExposeHeaders": ["ETag"],
        "MaxAgeSeconds": 600,
    },
    {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
]


@pytest.fixture
def shared(s3: Any, bucket: str) -> str:
    """A bucket with these rules and one object."""
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    return bucket


def preflight(gateway: Gateway, path: str, origin: str = ORIGIN, method: str = "GET", headers: str = "") -> Answer:
    """A browser's question."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return send(gateway, "OPTIONS", path, headers={name: text for name, text in asked.items() if text}, name=None)


def test_rules_come_back(s3: Any, bucket: str) -> None:
    """As they were put, until they are deleted."""
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": RULES})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == RULES
    s3.delete_bucket_cors(Bucket=bucket)
    assert refusal(s3.get_bucket_cors, Bucket=bucket).code == "NoSuchCORSConfiguration"
    s3.delete_bucket_cors(Bucket=bucket)


def test_a_preflight_is_granted(gateway: Gateway, shared: str) -> None:
    """Of a bucket and of an object, which need not be there."""
    for path in (f"/{shared}", f"/{shared}/k", f"/{shared}/none"):
        answer = preflight(gateway, path, method="PUT", headers="Content-Type, x-amz-meta-a")
        assert (answer.status, answer.body) == (200, b"")
        told = {name: text for name, text in answer.headers.items() if name.startswith("access-control-")}
        assert told == {
            "access-control-allow-origin": ORIGIN,
            "access-control-allow-methods": "GET, PUT",
            "access-control-allow-headers": "content-type, x-amz-meta-a",
            "access-control-expose-headers": "ETag",
            "access-control-max-age": "600",
            "access-control-allow-credentials": "true",
        }
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("asked", "status", "code"),
    [
        ({"origin": "https://elsewhere.org"}, 403, "AccessForbidden"),
        ({"method": "DELETE"}, 403, "AccessForbidden"),
        ({"headers": "authorization"}, 403, "AccessForbidden"),
        ({"headers": ",".join(["x-amz-a"] * 129)}, 403, "AccessForbidden"),
        ({"origin": ""}, 400, "BadRequest"),
        ({"method": ""}, 400, "BadRequest"),
        ({"method": "PATCH"}, 400, "BadRequest"),
    ],
)
def test_a_preflight_is_refused(gateway: Gateway, shared: str, asked: dict[str, str], status: int, code: str) -> None:
    """With a document that says so, and with no word that a browser could take for a yes."""
    answer = preflight(gateway, f"/{shared}/k", **asked)
    assert (answer.status, answer.code) == (status, code)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_bucket_without_rules(gateway: Gateway, bucket: str) -> None:
    """403; a bucket that is not there is 404, and no bucket at all 403."""
    refused = preflight(gateway, f"/{bucket}/k")
    assert (refused.status, refused.code) == (403, "AccessForbidden")
    assert b"CORS is not enabled" in refused.body
    assert b"<Method>GET</Method><ResourceType>OBJECT</ResourceType>" in refused.body
    assert preflight(gateway, "/none-such/k").code == "NoSuchBucket"
    assert preflight(gateway, "/").code == "AccessForbidden"


def test_answers_tell_the_browser(gateway: Gateway, shared: str) -> None:
    """Those that give something and those that refuse it, in bodies and without one."""
    origin = {"Origin": ORIGIN}
    for method, path, name, status in (
        ("GET", f"/{shared}/k", "alice", 200),
        ("GET", f"/{shared}", "alice", 200),
        ("GET", f"/{shared}/none", "alice", 404),
        ("GET", f"/{shared}/k", None, 403),
        ("GET", f"/{shared}/k", "bob", 403),
        ("PUT", f"/{shared}/new", "alice", 200),
    ):
        answer = send(gateway, method, path, headers=origin, name=name)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-expose-headers"] == "ETag"
        assert "Origin" in answer.headers["vary"]
    head = send(gateway, "HEAD", f"/{shared}/k", headers={"Origin": "http://any"})
    assert head.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in head.headers


def test_answers_to_others(gateway: Gateway, shared: str) -> None:
    """Nothing is granted that no rule grants; the request is served all the same."""
    for headers in ({"Origin": "http://any"}, {}):
        answer = send(gateway, "GET", f"/{shared}/k", headers=headers)
        assert (answer.status, answer.body) == (200, b"body")
        assert "access-control-allow-origin" not in answer.headers


def test_a_presigned_request(gateway: Gateway, shared: str) -> None:
    """The preflight of the very URL, and then the request."""
    url = gateway.client(signature_version="s3v4").generate_presigned_url(
        "get_object", Params={"Bucket": shared, "Key": "k"}
    )
    path = url.removeprefix(gateway.url)
    assert preflight(gateway, path).headers["access-control-allow-origin"] == ORIGIN
    answer = send(gateway, "GET", path, headers={"Origin": ORIGIN}, name=None)
    assert (answer.status, answer.body) == (200, b"body")
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ({"AllowedOrigins": ["*.a.*"], "AllowedMethods": ["GET"]}, "InvalidRequest"),
        ({"AllowedOrigins": ["*"], "AllowedMethods": ["PATCH"]}, "InvalidRequest"),
        ({"AllowedOrigins": [], "AllowedMethods": ["GET"]}, "MalformedXML"),
    ],
)
def test_bad_rules_change_nothing(s3: Any, shared: str, rule: dict[str, Any], code: str) -> None:
    """The rules of before stay."""
    refused = refusal(s3.put_bucket_cors, Bucket=shared, CORSConfiguration={"CORSRules": [rule]})
    assert refused.code == code
    assert s3.get_bucket_cors(Bucket=shared)["CORSRules"] == RULES
