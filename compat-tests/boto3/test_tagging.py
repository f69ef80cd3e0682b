"""boto3: tags of objects and buckets, read back and counted."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.same_over_https


def tagging(**tags: str) -> dict[str, Any]:
    """As boto3 wants it."""
    return {"TagSet": [{"Key": name, "Value": text} for name, text in tags.items()]}


def tags_of(s3: Any, bucket: str, name: str, **version: str) -> dict[str, str]:
    """The tags of an object."""
    found = s3.get_object_tagging(Bucket=bucket, Key=name, **version)["TagSet"]
    return {tag["Key"]: tag["Value"] for tag in found}


@pytest.mark.s3_operation("PutObjectTagging", "GetObjectTagging", "DeleteObjectTagging")
def test_tags_of_an_object(s3: Any, bucket: str) -> None:
    """Set with the PUT, replaced, counted by HEAD, removed; the object stays what it is."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"body", Tagging="a=1&b=%C3%A9%20%2B")
    assert tags_of(s3, bucket, "k") == {"a": "1", "b": "é +"}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tagging(x="1", y="2", z=""))
    assert tags_of(s3, bucket, "k") == {"x": "1", "y": "2", "z": ""}
    assert s3.head_object(Bucket=bucket, Key="k")["TagCount"] == 3
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert tags_of(s3, bucket, "k") == {}
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"body"
    with pytest.raises(ClientError, match="InvalidTag"):
        s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tagging(**{f"t{n}": "" for n in range(11)}))


def test_tags_of_versions_copies_and_uploads(s3: Any, bucket: str) -> None:
    """Each version has its own, a copy takes them along or its own, and an upload brings them from its beginning."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket=bucket, Key="k", Body=b"1", Tagging="n=1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2", Tagging="n=2")
    s3.put_object_tagging(Bucket=bucket, Key="k", VersionId=old, Tagging=tagging(n="old"))
    assert (tags_of(s3, bucket, "k", VersionId=old), tags_of(s3, bucket, "k")) == ({"n": "old"}, {"n": "2"})
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="other", CopySource=source, Tagging="m=3", TaggingDirective="REPLACE")
    assert (tags_of(s3, bucket, "copy"), tags_of(s3, bucket, "other")) == ({"n": "2"}, {"m": "3"})
    s3.upload_file(__file__, bucket, "file", ExtraArgs={"Tagging": "from=file"})
    assert tags_of(s3, bucket, "file") == {"from": "file"}


@pytest.mark.s3_operation("PutBucketTagging", "GetBucketTagging", "DeleteBucketTagging")
def test_tags_of_a_bucket(s3: Any, bucket: str) -> None:
    """Given back, and gone when they are deleted."""
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(team="storage", cost=""))
    found = s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    assert sorted((tag["Key"], tag["Value"]) for tag in found) == [("cost", ""), ("team", "storage")]
    s3.delete_bucket_tagging(Bucket=bucket)
    with pytest.raises(ClientError, match="NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)


@pytest.mark.s3_operation("PutBucketRequestPayment", "GetBucketRequestPayment")
def test_who_pays(s3: Any, bucket: str) -> None:
    """Given back as it was put."""
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
    s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "Requester"


@pytest.mark.s3_operation("PutBucketAccelerateConfiguration", "GetBucketAccelerateConfiguration")
def test_acceleration(s3: Any, bucket: str) -> None:
    """Given back as it was put."""
    assert "Status" not in s3.get_bucket_accelerate_configuration(Bucket=bucket)
    s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": "Suspended"})
    assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == "Suspended"
