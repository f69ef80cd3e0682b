"""DeleteObject and DeleteObjects."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from storage.model import Versioning
from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import Answer, send
from tests.s3gw.refusal import refusal


def delete(gateway: Gateway, bucket: str, body: bytes, **headers: str) -> Answer:
    """A DeleteObjects request with its Content-MD5."""
    digest = {"Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode()}
    return send(gateway, "POST", f"/{bucket}?delete", body, digest | headers)


def test_a_missing_key_is_deleted(s3: Any, bucket: str) -> None:
    """204 either way."""
    assert s3.delete_object(Bucket=bucket, Key="none")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_many(s3: Any, bucket: str) -> None:
    """1,000 keys in one request; missing ones are deleted too."""
    s3.put_object(Bucket=bucket, Key="k0", Body=b"x")
    keys = [{"Key": f"k{number}"} for number in range(1000)]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    assert [one["Key"] for one in done["Deleted"]] == [one["Key"] for one in keys]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_quiet(s3: Any, bucket: str) -> None:
    """Only failures are told."""
    bad = {"Key": "k", "VersionId": "nonsense"}
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, bad], "Quiet": True})
    assert "Deleted" not in done
    assert [(one["Key"], one["Code"]) for one in done["Errors"]] == [("k", "NoSuchVersion")]


def test_versions_and_markers(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Made and removed markers are told apart."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["VersionId"]
    (made,) = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})["Deleted"]
    assert made["DeleteMarker"] and "VersionId" not in made
    marker = made["DeleteMarkerVersionId"]
    both = [{"Key": "k", "VersionId": marker}, {"Key": "k", "VersionId": version}]
    removed = s3.delete_objects(Bucket=bucket, Delete={"Objects": both})["Deleted"]
    assert removed == [
        {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker},
        {"Key": "k", "VersionId": version},
    ]


def test_conditional_deletes(s3: Any, bucket: str) -> None:
    """The ETag is compared, alone and in a list."""
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ETag"]
    assert refusal(s3.delete_object, Bucket=bucket, Key="k", IfMatch='"y"').code == "PreconditionFailed"
    (error,) = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "ETag": '"y"'}]})["Errors"]
    assert error["Code"] == "PreconditionFailed"
    s3.delete_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert refusal(s3.head_object, Bucket=bucket, Key="k").status == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MalformedXML"),
        (b"<Delete>", "MalformedXML"),
        (b"<Delete/>", "MalformedXML"),
        (b"<Delete><Object/></Delete>", "MalformedXML"),
        (b"<Delete><Object><Key></Key></Object></Delete>", "MalformedXML"),
        (b"<Delete>" + b"<Object><Key>k</Key></Object>" * 1001 + b"</Delete>", "MalformedXML"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><Delete><Object><Key>&a;</Key></Object></Delete>', "MalformedXML"),
        (b"<Delete>" + b" " * (4 << 20) + b"</Delete>", "MaxMessageLengthExceeded"),
    ],
    ids=["empty", "open", "none", "no key", "empty key", "1001", "entity", "too long"],
)
def test_bad_bodies(gateway: Gateway, bucket: str, body: bytes, code: str) -> None:
    """Each with AWS's code."""
    assert delete(gateway, bucket, body).code == code


def test_the_body_must_prove_itself(gateway: Gateway, bucket: str) -> None:
    """Row 19: Content-MD5 or a checksum, and it must hold."""
    body = b"<Delete><Object><Key>k</Key></Object></Delete>"
    assert send(gateway, "POST", f"/{bucket}?delete", body).code == "InvalidRequest"
    assert delete(gateway, bucket, body, **{"Content-MD5": "A" * 22 + "=="}).code == "BadDigest"


def test_one_bad_key_does_not_spoil_the_rest(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Too long, or with conditions that are none: outcomes of their own."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    long = "l" * 1025
    body = (
        f"<Delete><Object><Key>{long}</Key></Object><Object><Key>k</Key></Object>"
        "<Object><Key>s</Key><Size>small</Size></Object></Delete>"
    ).encode()
    answer = delete(gateway, bucket, body)
    assert answer.status == 200
    assert b"<Deleted><Key>k</Key></Deleted>" in answer.body
    assert b"<Code>KeyTooLongError</Code>" in answer.body and b"<Code>InvalidArgument</Code>" in answer.body
