"""CopyObject: sources, directives, conditions, the rule of self-copies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from storage.model import Versioning
from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal


@pytest.fixture
def source(s3: Any, bucket: str) -> str:
    """A bucket with an object `s` that has every attribute."""
    s3.put_object(
        Bucket=bucket,
        Key="s",
        Body=b"body",
        ContentType="text/x",
        CacheControl="no-cache",
        Metadata={"a": "1"},
        Tagging="t=1",
        StorageClass="STANDARD_IA",
        WebsiteRedirectLocation="/r",
        ChecksumAlgorithm="SHA1",
    )
    return bucket


def test_copy_keeps_attributes(s3: Any, source: str) -> None:
    """All but the storage class and the redirect, which are never copied."""
    done = s3.copy_object(Bucket=source, Key="d", CopySource={"Bucket": source, "Key": "s"})
    assert done["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=source, Key="s")["ETag"]
    assert done["CopyObjectResult"]["ChecksumSHA1"]
    head = s3.head_object(Bucket=source, Key="d")
    assert (head["ContentType"], head["CacheControl"], head["Metadata"]) == ("text/x", "no-cache", {"a": "1"})
    assert "StorageClass" not in head and "WebsiteRedirectLocation" not in head and head["TagCount"] == 1


def test_replace_merges_nothing(s3: Any, source: str) -> None:
    """Metadata of the request alone; tags by their own directive."""
    s3.copy_object(
        Bucket=source,
        Key="d",
        CopySource={"Bucket": source, "Key": "s"},
        MetadataDirective="REPLACE",
        Metadata={"b": "2"},
        TaggingDirective="REPLACE",
        Tagging="u=1&v=2",
        ChecksumAlgorithm="CRC32",
    )
    head = s3.head_object(Bucket=source, Key="d", ChecksumMode="ENABLED")
    assert (head["ContentType"], head["Metadata"], head["TagCount"]) == ("binary/octet-stream", {"b": "2"}, 2)
    assert "CacheControl" not in head and head["ChecksumCRC32"]


def test_onto_itself(s3: Any, source: str) -> None:
    """Row 16: refused unless something changes."""
    itself = {"Bucket": source, "Key": "s", "CopySource": {"Bucket": source, "Key": "s"}}
    refused = refusal(s3.copy_object, **itself)
    assert (refused.code, refused.status) == ("InvalidRequest", 400)
    s3.copy_object(**itself, MetadataDirective="REPLACE", Metadata={"mode": "33188"})
    assert s3.head_object(Bucket=source, Key="s")["Metadata"] == {"mode": "33188"}
    for change in (
        {"StorageClass": "ONEZONE_IA"},
        {"WebsiteRedirectLocation": "/x"},
        {"ServerSideEncryption": "AES256"},
    ):
        s3.copy_object(**itself, **change)


def test_an_older_version_is_brought_back(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Onto the same key, naming the version; both versions are told."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"old")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"new")
    done = s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": old})
    assert done["CopySourceVersionId"] == old and done["VersionId"] != old
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    by_marker = {"Bucket": bucket, "Key": "k", "VersionId": marker}
    assert refusal(s3.copy_object, Bucket=bucket, Key="d", CopySource=by_marker).code == "InvalidRequest"


def test_conditions_on_the_source(s3: Any, source: str) -> None:
    """Every one that fails is 412."""
    head = s3.head_object(Bucket=source, Key="s")
    etag, at = head["ETag"], head["LastModified"]
    copy = {"Bucket": source, "Key": "d", "CopySource": {"Bucket": source, "Key": "s"}}
    for failing in (
        {"CopySourceIfMatch": '"x"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfModifiedSince": at},
        {"CopySourceIfUnmodifiedSince": at - timedelta(seconds=5)},
    ):
        assert refusal(s3.copy_object, **copy, **failing).status == 412
    s3.copy_object(**copy, CopySourceIfMatch=etag, CopySourceIfUnmodifiedSince=at - timedelta(seconds=5))
    s3.copy_object(**copy, CopySourceIfNoneMatch='"x"', CopySourceIfModifiedSince=at)


def test_condition_on_the_destination(s3: Any, source: str) -> None:
    """Decided with the commit of the copy."""
    copy = {"Bucket": source, "CopySource": {"Bucket": source, "Key": "s"}}
    s3.copy_object(**copy, Key="new", IfNoneMatch="*")
    assert refusal(s3.copy_object, **copy, Key="new", IfNoneMatch="*").status == 412


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("bucket-only", "InvalidArgument"),
        ("/", "InvalidArgument"),
        ("none-such/k", "NoSuchBucket"),
        ("{bucket}/none", "NoSuchKey"),
        ("{bucket}/s?versionId=x", "InvalidArgument"),
        ("{bucket}/s?versionId=00000000000000000000000000000001", "NoSuchVersion"),
        ("{bucket}/%FF", "InvalidArgument"),
    ],
)
def test_bad_sources(gateway: Gateway, source: str, header: str, code: str) -> None:
    """Each with AWS's code."""
    answer = send(gateway, "PUT", f"/{source}/d", headers={"x-amz-copy-source": header.format(bucket=source)})
    assert answer.code == code


@pytest.mark.parametrize("headers", [{"x-amz-metadata-directive": "MERGE"}, {"x-amz-tagging-directive": "X"}])
def test_bad_directives(gateway: Gateway, source: str, headers: dict[str, str]) -> None:
    """InvalidArgument."""
    answer = send(gateway, "PUT", f"/{source}/d", headers={"x-amz-copy-source": f"{source}/s"} | headers)
    assert answer.code == "InvalidArgument"


def test_sources_of_others_are_denied(gateway: Gateway, source: str) -> None:
    """Reading needs the right to read; root has it."""
    bob = gateway.client("bob")
    bob.create_bucket(Bucket="bobs")
    copy = {"Bucket": "bobs", "Key": "d", "CopySource": {"Bucket": source, "Key": "s"}}
    assert refusal(bob.copy_object, **copy).code == "AccessDenied"
    gateway.client("root").copy_object(**copy)


def test_sources_as_they_are_written(gateway: Gateway, s3: Any, bucket: str) -> None:
    """With and without a leading slash; a plus is a space."""
    s3.put_object(Bucket=bucket, Key="a b", Body=b"x")
    for header in (f"{bucket}/a%20b", f"/{bucket}/a+b", f"%2F{bucket}%2Fa%20b"):
        assert send(gateway, "PUT", f"/{bucket}/d", headers={"x-amz-copy-source": header}).status == 200
