"""Tags of objects through the socket: set, changed, counted, copied and asked for by policies."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.s3gw.gateway import BOB, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

_numbers = itertools.count(1)


@pytest.fixture
def versioned(s3: Any) -> str:
    """A new bucket with versioning."""
    name = f"versioned-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


def tag_set(**tags: str) -> dict[str, Any]:
    """As boto3 wants it."""
    return {"TagSet": [{"Key": name, "Value": text} for name, text in tags.items()]}


def tags_of(s3: Any, bucket: str, name: str = "k", **where: str) -> dict[str, str]:
    """As they are now."""
    found = s3.get_object_tagging(Bucket=bucket, Key=name, **where)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in found}


def test_set_change_and_remove(s3: Any, bucket: str) -> None:
    """Each time all of them; nothing else of the object changes."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"body", Tagging="old=1", Metadata={"a": "b"})
    before = s3.head_object(Bucket=bucket, Key="k")
    answer = s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(b="2", a="1 +-=._:/@é"))
    assert "VersionId" not in answer
    assert tags_of(s3, bucket) == {"a": "1 +-=._:/@é", "b": "2"}
    after = s3.get_object(Bucket=bucket, Key="k")
    assert (after["TagCount"], after["Body"].read(), after["Metadata"]) == (2, b"body", {"a": "b"})
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    assert s3.delete_object_tagging(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert tags_of(s3, bucket) == {}
    assert "TagCount" not in s3.head_object(Bucket=bucket, Key="k")
    s3.delete_object_tagging(Bucket=bucket, Key="k")


def test_tags_of_a_version(s3: Any, versioned: str) -> None:
    """Each version has its own; answers say which one it was."""
    old, new = (s3.put_object(Bucket=versioned, Key="k", Body=b"x", Tagging=f"n={n}")["VersionId"] for n in (1, 2))
    assert s3.put_object_tagging(Bucket=versioned, Key="k", Tagging=tag_set(n="3"))["VersionId"] == new
    changed = s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=old, Tagging=tag_set(n="4"))
    assert changed["VersionId"] == old
    assert tags_of(s3, versioned, VersionId=old) == {"n": "4"}
    assert tags_of(s3, versioned) == {"n": "3"}
    assert s3.delete_object_tagging(Bucket=versioned, Key="k", VersionId=old)["VersionId"] == old
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)["VersionId"] == old
    assert tags_of(s3, versioned, VersionId=old) == {}


def test_what_is_not_there(s3: Any, bucket: str, versioned: str) -> None:
    """No key, no version, a marker."""
    assert refusal(s3.put_object_tagging, Bucket=bucket, Key="none", Tagging=tag_set(a="1")).code == "NoSuchKey"
    assert refusal(s3.delete_object_tagging, Bucket=bucket, Key="none").code == "NoSuchKey"
    gone = s3.put_object(Bucket=versioned, Key="k", Body=b"x")["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=gone)
    arguments = {"Bucket": versioned, "Key": "k", "Tagging": tag_set(a="1")}
    assert refusal(s3.put_object_tagging, VersionId=gone, **arguments).code in ("NoSuchKey", "NoSuchVersion")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    assert refusal(s3.put_object_tagging, **arguments).code == "NoSuchKey"
    refused = refusal(s3.put_object_tagging, VersionId=marker, **arguments)
    assert (refused.code, refused.headers["x-amz-delete-marker"]) == ("MethodNotAllowed", "true")
    assert refusal(s3.get_object_tagging, Bucket=versioned, Key="k", VersionId=marker).code == "MethodNotAllowed"


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ([(f"n{number}", "") for number in range(11)], "InvalidTag"),
        ([("a", "1"), ("a", "2")], "InvalidTag"),
        ([("a" * 129, "1")], "InvalidTag"),
        ([("a", "1" * 257)], "InvalidTag"),
        ([("aws:a", "1")], "InvalidTag"),
    ],
)
def test_bad_tags_change_nothing(s3: Any, bucket: str, tags: list[tuple[str, str]], code: str) -> None:
    """The tags of before stay."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="kept=1")
    wanted = {"TagSet": [{"Key": name, "Value": text} for name, text in tags]}
    assert refusal(s3.put_object_tagging, Bucket=bucket, Key="k", Tagging=wanted).code == code
    assert tags_of(s3, bucket) == {"kept": "1"}


def test_a_body_that_is_no_document(gateway: Gateway, s3: Any, bucket: str) -> None:
    """MalformedXML."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for body in (b"", b"<Tagging>", b"<Tagging/>"):
        assert send(gateway, "PUT", f"/{bucket}/k?tagging", body).code == "MalformedXML"


def test_uploads_and_copies_carry_tags(s3: Any, bucket: str) -> None:
    """From Create; copied unless the copy brings its own."""
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Tagging="from=create")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload=parts)
    assert tags_of(s3, bucket) == {"from": "create"}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(now="1"))
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copied", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="ignored", CopySource=source, Tagging="a=1")
    s3.copy_object(Bucket=bucket, Key="own", CopySource=source, Tagging="a=1", TaggingDirective="REPLACE")
    s3.copy_object(Bucket=bucket, Key="none", CopySource=source, TaggingDirective="REPLACE")
    found = [tags_of(s3, bucket, name) for name in ("copied", "ignored", "own", "none")]
    assert found == [{"now": "1"}, {"now": "1"}, {"a": "1"}, {}]


def test_policies_speak_of_tags(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Of those that a request sets, and of those that an object has."""
    bob = gateway.client("bob")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    arguments = {"Bucket": bucket, "Key": "k"}
    assert refusal(bob.put_object_tagging, Tagging=tag_set(team="b"), **arguments).code == "AccessDenied"
    statement = {
        "Effect": "Allow",
        "Principal": {"CanonicalUser": BOB.canonical_id},
        "Action": "s3:PutObjectTagging",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"StringEquals": {"s3:RequestObjectTag/team": "b"}},
    }
    reading = statement | {
        "Action": ["s3:GetObjectTagging", "s3:DeleteObjectTagging"],
        "Condition": {"StringEquals": {"s3:ExistingObjectTag/team": "b"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [statement, reading]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    assert refusal(bob.put_object_tagging, Tagging=tag_set(team="a"), **arguments).code == "AccessDenied"
    assert refusal(bob.get_object_tagging, **arguments).code == "AccessDenied"
    bob.put_object_tagging(Tagging=tag_set(team="b", more=""), **arguments)
    assert tags_of(bob, bucket) == {"team": "b", "more": ""}
    bob.delete_object_tagging(**arguments)
    assert refusal(bob.get_object_tagging, **arguments).code == "AccessDenied"
    assert tags_of(s3, bucket) == {}
