"""Reading every sub-resource of an untouched bucket and object, as Terraform does."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3gw.gateway import ALICE, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("get_bucket_policy", "NoSuchBucketPolicy"),
        ("get_bucket_tagging", "NoSuchTagSet"),
        ("get_bucket_cors", "NoSuchCORSConfiguration"),
        ("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"),
        ("get_bucket_website", "NoSuchWebsiteConfiguration"),
        ("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
        ("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
        ("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
        ("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
    ],
)
def test_not_configured(s3: Any, bucket: str, action: str, code: str) -> None:
    """404 with the code of each."""
    refused = refusal(getattr(s3, action), Bucket=bucket)
    assert (refused.code, refused.status) == (code, 404)


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("get_bucket_versioning", {}),
        ("get_bucket_logging", {}),
        ("get_bucket_notification_configuration", {}),
        ("get_bucket_accelerate_configuration", {}),
        ("get_bucket_request_payment", {"Payer": "BucketOwner"}),
        ("get_bucket_policy_status", {"PolicyStatus": {"IsPublic": False}}),
        ("list_bucket_analytics_configurations", {"IsTruncated": False}),
        ("list_bucket_inventory_configurations", {"IsTruncated": False}),
        ("list_bucket_metrics_configurations", {"IsTruncated": False}),
        ("list_bucket_intelligent_tiering_configurations", {"IsTruncated": False}),
    ],
)
def test_default_state(s3: Any, bucket: str, action: str, part: dict[str, Any]) -> None:
    """200 with what holds."""
    answer = getattr(s3, action)(Bucket=bucket)
    answer.pop("ResponseMetadata")
    assert answer == part


def test_encryption_is_always_on(s3: Any, bucket: str) -> None:
    """Every object says AES256; a bucket tells of a default encryption only when one was put."""
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256"
    assert refusal(s3.get_bucket_encryption, Bucket=bucket).code == "ServerSideEncryptionConfigurationNotFoundError"


def test_access_lists(s3: Any, bucket: str) -> None:
    """The owner has full control of bucket and object, and nobody else anything."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    owner = {"ID": ALICE.canonical_id, "DisplayName": "Alice"}
    for answer in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert answer["Owner"] == owner
        assert answer["Grants"] == [{"Grantee": owner | {"Type": "CanonicalUser"}, "Permission": "FULL_CONTROL"}]


def test_named_configurations_do_not_exist(gateway: Gateway, bucket: str) -> None:
    """NoSuchConfiguration for any id."""
    for name in ("analytics", "inventory", "metrics", "intelligent-tiering"):
        answer = send(gateway, "GET", f"/{bucket}?{name}&id=x")
        assert (answer.status, answer.code) == (404, "NoSuchConfiguration")


def test_tags_of_an_object(s3: Any, bucket: str) -> None:
    """From its PUT; counted in headers."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=1&b=2")
    s3.put_object(Bucket=bucket, Key="bare", Body=b"x")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [
        {"Key": "a", "Value": "1"},
        {"Key": "b", "Value": "2"},
    ]
    assert s3.head_object(Bucket=bucket, Key="k")["TagCount"] == 2
    assert s3.get_object_tagging(Bucket=bucket, Key="bare")["TagSet"] == []


def test_object_lock_is_not_there(s3: Any, bucket: str) -> None:
    """As on a bucket that was made without it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for action in (s3.get_object_retention, s3.get_object_legal_hold):
        assert refusal(action, Bucket=bucket, Key="k").code == "InvalidRequest"


def test_settings_of_a_missing_object(s3: Any, bucket: str) -> None:
    """NoSuchKey before anything else."""
    for action in (s3.get_object_acl, s3.get_object_tagging, s3.get_object_retention):
        assert refusal(action, Bucket=bucket, Key="none").code == "NoSuchKey"
