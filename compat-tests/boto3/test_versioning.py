"""boto3: versioned buckets, read back version by version."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.same_over_https


@pytest.fixture
def versioned(s3: Any, bucket: str) -> str:
    """A bucket that keeps versions."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def read(s3: Any, bucket: str, name: str, **version: str) -> bytes:
    """A whole object."""
    body: bytes = s3.get_object(Bucket=bucket, Key=name, **version)["Body"].read()
    return body


@pytest.mark.s3_operation("PutBucketVersioning", "GetObject", "DeleteObject")
def test_versions_are_kept(s3: Any, versioned: str) -> None:
    """Overwritten and deleted, each version is still read by its id."""
    bodies = [b"first", b"second" * 100_000, b""]
    ids = [s3.put_object(Bucket=versioned, Key="k", Body=body)["VersionId"] for body in bodies]
    marker = s3.delete_object(Bucket=versioned, Key="k")
    assert marker["DeleteMarker"] is True
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=versioned, Key="k")
    assert [read(s3, versioned, "k", VersionId=version_id) for version_id in ids] == bodies
    listed = s3.list_object_versions(Bucket=versioned)
    assert [one["VersionId"] for one in listed["Versions"]] == ids[::-1]
    assert [one["VersionId"] for one in listed["DeleteMarkers"]] == [marker["VersionId"]]


def test_an_object_comes_back(s3: Any, versioned: str) -> None:
    """By removing its marker, or by copying an old version over the new one."""
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"old")["VersionId"]
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    assert read(s3, versioned, "k") == b"old"
    s3.put_object(Bucket=versioned, Key="k", Body=b"new")
    s3.copy_object(Bucket=versioned, Key="k", CopySource={"Bucket": versioned, "Key": "k", "VersionId": old})
    assert read(s3, versioned, "k") == b"old"


def test_a_suspended_bucket_keeps_what_it_has(s3: Any, versioned: str) -> None:
    """New objects take the place of the null version alone."""
    kept = s3.put_object(Bucket=versioned, Key="k", Body=b"kept")["VersionId"]
    s3.put_bucket_versioning(Bucket=versioned, VersioningConfiguration={"Status": "Suspended"})
    for body in (b"one", b"two"):
        assert "VersionId" not in s3.put_object(Bucket=versioned, Key="k", Body=body)
    assert read(s3, versioned, "k", VersionId="null") == b"two"
    assert read(s3, versioned, "k", VersionId=kept) == b"kept"
    assert len(s3.list_object_versions(Bucket=versioned)["Versions"]) == 2


@pytest.mark.s3_operation("ListObjectVersions")
def test_pages_hold_everything_once(s3: Any, versioned: str) -> None:
    """Cut in the middle of a key, rolled up, and of names that XML must escape."""
    names = ["a&b", "dir/1", "dir/2", "plus+ é"]
    ids = {(name, s3.put_object(Bucket=versioned, Key=name)["VersionId"]) for name in names for _ in range(3)}
    paginator = s3.get_paginator("list_object_versions")
    pages = list(paginator.paginate(Bucket=versioned, PaginationConfig={"PageSize": 2}))
    assert len(pages) == 6
    found = [(one["Key"], one["VersionId"]) for page in pages for one in page["Versions"]]
    assert len(found) == len(ids) and set(found) == ids
    rolled = list(paginator.paginate(Bucket=versioned, Delimiter="/", PaginationConfig={"PageSize": 2}))
    assert [one["Prefix"] for page in rolled for one in page.get("CommonPrefixes", [])] == ["dir/"]
    assert sum(len(page.get("Versions", [])) for page in rolled) == 6


def test_a_bucket_is_emptied(s3: Any, versioned: str) -> None:
    """What every clean-up script does: delete all versions, then the bucket."""
    for name in ("a", "b"):
        s3.put_object(Bucket=versioned, Key=name)
        s3.delete_object(Bucket=versioned, Key=name)
    with pytest.raises(ClientError, match="BucketNotEmpty"):
        s3.delete_bucket(Bucket=versioned)
    page = s3.list_object_versions(Bucket=versioned)
    targets = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in page["Versions"] + page["DeleteMarkers"]]
    done = s3.delete_objects(Bucket=versioned, Delete={"Objects": targets})["Deleted"]
    assert sum(one.get("DeleteMarker", False) for one in done) == 2
    s3.delete_bucket(Bucket=versioned)


def test_conditional_deletes(s3: Any, versioned: str) -> None:
    """By ETag, size and time, of the current object and of a version in a list."""
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"first")
    modified = s3.head_object(Bucket=versioned, Key="k")["LastModified"]
    for condition in ({"IfMatch": '"other"'}, {"IfMatchSize": 6}):
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.delete_object(Bucket=versioned, Key="k", **condition)
    target = {"Key": "k", "VersionId": first["VersionId"], "LastModifiedTime": modified}
    wrong = {"Objects": [target | {"ETag": '"other"'}]}
    assert s3.delete_objects(Bucket=versioned, Delete=wrong)["Errors"][0]["Code"] == "PreconditionFailed"
    assert read(s3, versioned, "k") == b"first"
    s3.delete_objects(Bucket=versioned, Delete={"Objects": [target | {"ETag": first["ETag"], "Size": 5}]})
    assert "Versions" not in s3.list_object_versions(Bucket=versioned)
