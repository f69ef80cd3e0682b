"""Lifecycle rules through the socket: kept, given back, refused, and told of in the headers of answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

EXPIRE: dict[str, Any] = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 2}}
RULES: list[dict[str, Any]] = [
    EXPIRE,
    {
        "ID": "and",
        "Status": "Disabled",
        "Filter": {
            "And": {
                "Prefix": "a/",
                "Tags": [{"Key": "k", "Value": "v"}, {"Key": "l", "Value": ""}],
                "ObjectSizeGreaterThan": 0,
                "ObjectSizeLessThan": 9,
            }
        },
        "Expiration": {"Date": datetime(2090, 1, 1, tzinfo=UTC)},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 3, "NewerNoncurrentVersions": 4},
    },
    {
        "ID": "old form",
        "Status": "Enabled",
        "Prefix": "up/",
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 5},
    },
    {"ID": "marker", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    {
        "ID": "tagged",
        "Status": "Enabled",
        "Filter": {"Tag": {"Key": "temporary", "Value": "yes"}},
        "Expiration": {"Days": 1},
    },
]


def put_rules(s3: Any, bucket: str, *rules: dict[str, Any], **arguments: str) -> dict[str, Any]:
    """Set them."""
    answer: dict[str, Any] = s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)}, **arguments
    )
    return answer


def read_expiration(answer: Mapping[str, Any]) -> tuple[datetime, str]:
    """When and by which rule, as x-amz-expiration says."""
    match = re.fullmatch(r'expiry-date="([^"]+)", rule-id="([^"]+)"', answer["Expiration"])
    assert match is not None
    return parsedate_to_datetime(match[1]), match[2]


def test_rules_come_back(s3: Any, bucket: str) -> None:
    """As they were put, until they are deleted."""
    answer = put_rules(s3, bucket, *RULES)
    assert answer["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert found["Rules"] == RULES
    assert found["TransitionDefaultMinimumObjectSize"] == "all_storage_classes_128K"
    put_rules(s3, bucket, EXPIRE, TransitionDefaultMinimumObjectSize="varies_by_storage_class")
    found = s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert (found["Rules"], found["TransitionDefaultMinimumObjectSize"]) == ([EXPIRE], "varies_by_storage_class")
    for _ in range(2):
        s3.delete_bucket_lifecycle(Bucket=bucket)
        assert refusal(s3.get_bucket_lifecycle_configuration, Bucket=bucket).code == "NoSuchLifecycleConfiguration"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Status": "enabled"}, "MalformedXML"),
        ({"Prefix": "both"}, "MalformedXML"),
        ({"Expiration": {"Days": 0}}, "InvalidArgument"),
        ({"Expiration": {"Date": datetime(2090, 1, 1, 1, tzinfo=UTC)}}, "InvalidArgument"),
        ({"ID": "i" * 256}, "InvalidArgument"),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}, "NotImplemented"),
    ],
)
def test_bad_rules_change_nothing(s3: Any, bucket: str, change: dict[str, Any], code: str) -> None:
    """The rules of before stay."""
    put_rules(s3, bucket, EXPIRE)
    refused = refusal(
        s3.put_bucket_lifecycle_configuration, Bucket=bucket, LifecycleConfiguration={"Rules": [EXPIRE | change]}
    )
    assert refused.code == code
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [EXPIRE]


def test_a_body_that_is_no_document(gateway: Gateway, bucket: str) -> None:
    """MalformedXML."""
    for body in (b"", b"<", b"<LifecycleConfiguration/>", b"<Other/>"):
        assert send(gateway, "PUT", f"/{bucket}?lifecycle", body).code == "MalformedXML"


def test_answers_say_when_an_object_expires(s3: Any, bucket: str) -> None:
    """PUT, GET, HEAD, copy and Complete, at midnight UTC; no word of it for what no rule ends."""
    put_rules(s3, bucket, *RULES)
    put = s3.put_object(Bucket=bucket, Key="logs/1", Body=b"x")
    written = s3.head_object(Bucket=bucket, Key="logs/1")["LastModified"]
    at, rule_id = read_expiration(put)
    assert rule_id == "logs"
    assert at.time() == datetime.min.time()
    assert timedelta(days=2) < at - written <= timedelta(days=3)
    for answer in (s3.head_object, s3.get_object):
        assert read_expiration(answer(Bucket=bucket, Key="logs/1")) == (at, "logs")
    copied = s3.copy_object(Bucket=bucket, Key="logs/2", CopySource={"Bucket": bucket, "Key": "logs/1"})
    assert read_expiration(copied)[1] == "logs"
    upload = s3.create_multipart_upload(Bucket=bucket, Key="logs/3")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="logs/3", UploadId=upload, PartNumber=1, Body=b"x")
    completed = s3.complete_multipart_upload(
        Bucket=bucket,
        Key="logs/3",
        UploadId=upload,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
    )
    assert read_expiration(completed)[1] == "logs"
    assert "Expiration" not in s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="kept")
    tagged = s3.put_object(Bucket=bucket, Key="tagged", Body=b"x", Tagging="temporary=yes")
    assert read_expiration(tagged)[1] == "tagged"
    both = s3.put_object(Bucket=bucket, Key="logs/tagged", Body=b"x", Tagging="temporary=yes")
    assert read_expiration(both)[1] == "tagged"


def test_answers_say_when_an_upload_is_aborted(s3: Any, bucket: str) -> None:
    """At Create and in ListParts."""
    put_rules(s3, bucket, *RULES)
    created = s3.create_multipart_upload(Bucket=bucket, Key="up/1")
    listed = s3.list_parts(Bucket=bucket, Key="up/1", UploadId=created["UploadId"])
    assert created["AbortRuleId"] == listed["AbortRuleId"] == "old%20form"
    assert created["AbortDate"] == listed["AbortDate"]
    assert (
        timedelta(days=5)
        < created["AbortDate"] - datetime.now(UTC) + timedelta(seconds=60)
        < timedelta(days=6, minutes=2)
    )
    assert "AbortDate" not in s3.create_multipart_upload(Bucket=bucket, Key="other")


def test_only_the_owner(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Nobody else reads or changes the rules."""
    put_rules(s3, bucket, EXPIRE)
    bob = gateway.client("bob")
    for call in (bob.get_bucket_lifecycle_configuration, bob.delete_bucket_lifecycle):
        assert refusal(call, Bucket=bucket).code == "AccessDenied"
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == [EXPIRE]
