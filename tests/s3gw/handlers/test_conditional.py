"""Conditional writes and deletes through the socket: decided in the commit, each with AWS's status."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

LONG_AGO = datetime(2015, 1, 1, tzinfo=UTC)
OTHER = '"0123456789abcdef0123456789abcdef"'
RACERS = 8

Write = Callable[..., str]
"""(client, bucket, conditions…) → ETag of the key `k`"""


def put(s3: Any, bucket: str, **conditions: Any) -> str:
    """By PutObject."""
    return str(s3.put_object(Bucket=bucket, Key="k", Body=b"body", **conditions)["ETag"])


def copy(s3: Any, bucket: str, **conditions: Any) -> str:
    """By CopyObject."""
    s3.put_object(Bucket=bucket, Key="source", Body=b"body")
    answer = s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/source", **conditions)
    return str(answer["CopyObjectResult"]["ETag"])


def complete(s3: Any, bucket: str, **conditions: Any) -> str:
    """By CompleteMultipartUpload."""
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"body")["ETag"]}]}
    return str(s3.complete_multipart_upload(**upload, MultipartUpload=parts, **conditions)["ETag"])


@pytest.mark.parametrize("write", [put, copy, complete])
@pytest.mark.parametrize("versioned", [False, True])
def test_conditional_writes(s3: Any, bucket: str, write: Write, versioned: bool) -> None:
    """Of what is current: nothing is 404 for If-Match, a mismatch 412, a marker is nothing."""
    if versioned:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})

    def refused(**conditions: str) -> tuple[str, int]:
        found = refusal(write, s3=s3, bucket=bucket, **conditions)
        return found.code, found.status

    for _ in range(2):
        assert refused(IfMatch="*") == refused(IfMatch=OTHER) == ("NoSuchKey", 404)
        etag = write(s3, bucket, IfNoneMatch="*")
        assert refused(IfNoneMatch="*") == refused(IfNoneMatch=etag) == ("PreconditionFailed", 412)
        assert refused(IfMatch=OTHER) == ("PreconditionFailed", 412)
        assert write(s3, bucket, IfMatch=etag) == write(s3, bucket, IfMatch="*") == etag
        assert write(s3, bucket, IfMatch=etag.strip('"')) == write(s3, bucket, IfNoneMatch=OTHER) == etag
        s3.delete_object(Bucket=bucket, Key="k")


def test_only_one_of_many_creates(s3: Any, bucket: str) -> None:
    """If-None-Match: * is a lock file: one winner, 412 or 409 for the rest."""

    def attempt(number: int) -> int:
        try:
            s3.put_object(Bucket=bucket, Key="lock", Body=b"%d" % number, IfNoneMatch="*")
        except s3.exceptions.ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    with ThreadPoolExecutor(RACERS) as pool:
        statuses = list(pool.map(attempt, range(RACERS)))
    assert statuses.count(200) == 1
    assert set(statuses) <= {200, 409, 412}
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b"%d" % statuses.index(200)


# ------------------------------------------------------------------ deletes


def conditions_of(s3: Any, bucket: str, etag: str) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """(arguments that hold, that do not, names in a list) for each kind of condition of the key `k`."""
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    return [
        ({"IfMatch": etag}, {"IfMatch": OTHER}, {"ETag": "IfMatch"}),
        ({"IfMatchSize": 4}, {"IfMatchSize": 5}, {"Size": "IfMatchSize"}),
        (
            {"IfMatchLastModifiedTime": modified},
            {"IfMatchLastModifiedTime": LONG_AGO},
            {"LastModifiedTime": "IfMatchLastModifiedTime"},
        ),
    ]


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("by_version", [None, False, True])
def test_conditional_deletes(s3: Any, bucket: str, kind: int, listed: bool, by_version: bool | None) -> None:
    """Alone and in a list, of the current object (None: never versioned) and of a version: 412, then gone; and of
    what is gone nothing is asked any more."""
    if by_version is not None:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    written = s3.put_object(Bucket=bucket, Key="k", Body=b"body")
    this = {"Key": "k"} | ({"VersionId": written["VersionId"]} if by_version else {})
    good, bad, names = conditions_of(s3, bucket, written["ETag"])[kind]

    def delete(conditions: dict[str, Any]) -> str:
        if not listed:
            try:
                s3.delete_object(Bucket=bucket, **this, **conditions)
            except s3.exceptions.ClientError as error:
                return str(error.response["Error"]["Code"])
            return ""
        target = this | {name: conditions[argument] for name, argument in names.items()}
        done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [target]})
        return str(done["Errors"][0]["Code"]) if "Errors" in done else ""

    assert delete(bad) == "PreconditionFailed"
    assert s3.head_object(Bucket=bucket, **this)["ContentLength"] == 4
    assert delete(good) == ""
    assert refusal(s3.head_object, Bucket=bucket, **this).status == 404
    marker_is_current = by_version is False
    assert delete(bad) == ("PreconditionFailed" if marker_is_current else "")


def test_all_conditions_must_hold(s3: Any, bucket: str) -> None:
    """One that does not is enough."""
    etag = put(s3, bucket)
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    held = {"IfMatch": etag, "IfMatchSize": 4, "IfMatchLastModifiedTime": modified}
    for broken in ({"IfMatch": OTHER}, {"IfMatchSize": 0}, {"IfMatchLastModifiedTime": modified + timedelta(days=1)}):
        assert refusal(s3.delete_object, Bucket=bucket, Key="k", **(held | broken)).code == "PreconditionFailed"
    s3.delete_object(Bucket=bucket, Key="k", **held)
    assert refusal(s3.head_object, Bucket=bucket, Key="k").status == 404


def test_a_conditional_delete_of_nothing_makes_no_marker(s3: Any, bucket: str) -> None:
    """204, and the bucket is as empty as before."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for condition in ({"IfMatch": "*"}, {"IfMatch": OTHER}, {"IfMatchSize": 1}):
        answer = s3.delete_object(Bucket=bucket, Key="k", **condition)
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204 and "DeleteMarker" not in answer
    assert "DeleteMarkers" not in s3.list_object_versions(Bucket=bucket)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"If-None-Match": "*"}, "NotImplemented"),
        ({"If-Match": '"a", "b"'}, "NotImplemented"),
        ({"x-amz-if-match-size": "-1"}, "InvalidArgument"),
        ({"x-amz-if-match-last-modified-time": "last week"}, "InvalidArgument"),
    ],
)
def test_conditions_that_are_refused(
    gateway: Gateway, s3: Any, bucket: str, headers: dict[str, str], code: str
) -> None:
    """Before anything is deleted."""
    put(s3, bucket)
    assert send(gateway, "DELETE", f"/{bucket}/k", headers=headers).code == code
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 4


# ------------------------------------------------------------------ sources of copies


@pytest.mark.parametrize("by_part", [False, True])
def test_conditions_on_the_source_of_a_copy(s3: Any, bucket: str, by_part: bool) -> None:
    """All four, and how they overrule each other; the same for a part."""
    etag = str(s3.put_object(Bucket=bucket, Key="source", Body=b"body")["ETag"])
    modified = s3.head_object(Bucket=bucket, Key="source")["LastModified"]
    later = modified + timedelta(days=1)
    upload = {"Bucket": bucket, "Key": "k"}
    if by_part:
        upload |= {"UploadId": s3.create_multipart_upload(**upload)["UploadId"], "PartNumber": 1}
    act = s3.upload_part_copy if by_part else s3.copy_object

    def try_copy(**conditions: Any) -> int:
        arguments = {f"CopySource{name}": condition for name, condition in conditions.items()}
        try:
            act(**upload, CopySource=f"{bucket}/source", **arguments)
        except s3.exceptions.ClientError as error:
            return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        return 200

    assert try_copy(IfMatch=etag) == try_copy(IfNoneMatch=OTHER) == 200
    assert try_copy(IfMatch=OTHER) == try_copy(IfNoneMatch=etag) == 412
    assert try_copy(IfModifiedSince=LONG_AGO) == try_copy(IfUnmodifiedSince=later) == 200
    assert try_copy(IfModifiedSince=modified) == try_copy(IfUnmodifiedSince=LONG_AGO) == 412
    assert try_copy(IfMatch=etag, IfUnmodifiedSince=LONG_AGO) == 200
    assert try_copy(IfNoneMatch=etag, IfModifiedSince=LONG_AGO) == 412
