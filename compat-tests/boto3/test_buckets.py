"""boto3: making, finding and removing buckets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.same_over_https


def code_of(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The S3 error code of a ClientError."""
    return str(error.value.response["Error"]["Code"])


@pytest.mark.s3_operation("CreateBucket", "HeadBucket", "ListBuckets", "DeleteBucket")
def test_create_head_list_delete(s3: Any, new_bucket_name: Callable[[], str]) -> None:
    """A bucket appears in ListBuckets and HeadBucket, and is gone after DeleteBucket."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name)
    assert s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"] == 200
    listed = {entry["Name"]: entry for entry in s3.list_buckets()["Buckets"]}
    assert listed[name]["CreationDate"].year >= 2024
    s3.delete_bucket(Bucket=name)
    with pytest.raises(ClientError) as missing:
        s3.head_bucket(Bucket=name)
    assert code_of(missing) == "404"


@pytest.mark.s3_operation("GetBucketLocation")
def test_location_is_null_in_the_first_region(s3: Any, bucket: str) -> None:
    """GetBucketLocation of us-east-1 is an empty constraint."""
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_waiters(s3: Any, new_bucket_name: Callable[[], str]) -> None:
    """bucket_exists, object_exists and their opposites end at once."""
    name = new_bucket_name()
    s3.get_waiter("bucket_not_exists").wait(Bucket=name)
    s3.create_bucket(Bucket=name)
    s3.get_waiter("bucket_exists").wait(Bucket=name)
    s3.get_waiter("object_not_exists").wait(Bucket=name, Key="here")
    s3.put_object(Bucket=name, Key="here", Body=b"now")
    s3.get_waiter("object_exists").wait(Bucket=name, Key="here")


def test_creating_again_is_fine_for_the_owner(s3: Any, bucket: str) -> None:
    """In us-east-1 the owner may create the same bucket again, and keeps what is in it."""
    s3.put_object(Bucket=bucket, Key="kept", Body=b"kept")
    s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"kept"


def test_a_bucket_with_objects_stays(s3: Any, bucket: str) -> None:
    """DeleteBucket of a bucket that is not empty is refused."""
    s3.put_object(Bucket=bucket, Key="object", Body=b"")
    with pytest.raises(ClientError) as refused:
        s3.delete_bucket(Bucket=bucket)
    assert code_of(refused) == "BucketNotEmpty"


def test_an_open_upload_does_not_keep_a_bucket(s3: Any, bucket: str) -> None:
    """DeleteBucket is not stopped by an open multipart upload."""
    s3.create_multipart_upload(Bucket=bucket, Key="never finished")
    s3.delete_bucket(Bucket=bucket)
    assert bucket not in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]


@pytest.mark.parametrize("name", ["ab", "UPPER", "under_score", "192.168.5.4", "a..b", "-dash-first"])
def test_bad_names_are_refused(s3: Any, name: str) -> None:
    """Names outside the rules are InvalidBucketName."""
    with pytest.raises(ClientError) as refused:
        s3.create_bucket(Bucket=name)
    assert code_of(refused) == "InvalidBucketName"


def test_a_missing_bucket_says_so(s3: Any, new_bucket_name: Callable[[], str]) -> None:
    """Listing, reading and writing in a bucket that is not there is NoSuchBucket."""
    name = new_bucket_name()
    for call in (
        lambda: s3.list_objects_v2(Bucket=name),
        lambda: s3.get_object(Bucket=name, Key="k"),
        lambda: s3.put_object(Bucket=name, Key="k", Body=b"x"),
        lambda: s3.create_multipart_upload(Bucket=name, Key="k"),
    ):
        with pytest.raises(ClientError) as missing:
            call()
        assert code_of(missing) == "NoSuchBucket"


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
    ],
)
def test_what_is_not_configured_says_so(s3: Any, bucket: str, operation: str, code: str) -> None:
    """Sub-resources answer as AWS does for a fresh bucket; infrastructure tools read all of them."""
    with pytest.raises(ClientError) as absent:
        getattr(s3, operation)(Bucket=bucket)
    assert code_of(absent) == code


def test_what_has_a_default_answers_it(s3: Any, bucket: str) -> None:
    """Versioning, logging, notification and acceleration of a fresh bucket are empty answers."""
    for operation in (
        "get_bucket_versioning",
        "get_bucket_logging",
        "get_bucket_notification_configuration",
        "get_bucket_accelerate_configuration",
    ):
        answer = getattr(s3, operation)(Bucket=bucket)
        del answer["ResponseMetadata"]
        assert answer == {}, operation
    assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == "BucketOwner"
