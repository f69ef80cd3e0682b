"""boto3: lifecycle rules, and what becomes of the objects that they speak of.

A Date that is past takes effect with the next round of the server's worker, which is within a minute at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.same_over_https

ROUND_S_MAX = 90.0
PAST = datetime(2020, 1, 1, tzinfo=UTC)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until a round has brought it about."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < ROUND_S_MAX
        time.sleep(0.1)


@pytest.mark.s3_operation("PutBucketLifecycleConfiguration", "GetBucketLifecycleConfiguration", "DeleteBucketLifecycle")
def test_objects_expire(s3: Any, bucket: str) -> None:
    """Those of the rule, and no others; answers say when the others do."""
    for name in ("old/1", "old/2", "kept"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    rules = [
        {"ID": "past", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Date": PAST}},
        {"ID": "later", "Status": "Enabled", "Filter": {"Prefix": "kept"}, "Expiration": {"Days": 10_000}},
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    assert 'rule-id="later"' in s3.head_object(Bucket=bucket, Key="kept")["Expiration"]

    def names() -> list[str]:
        return [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]

    wait_until(lambda: names() == ["kept"])
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"x"
    s3.delete_bucket_lifecycle(Bucket=bucket)
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    assert "Expiration" not in s3.head_object(Bucket=bucket, Key="kept")


def test_a_versioned_object_is_hidden(s3: Any, bucket: str) -> None:
    """By a delete marker; the version stays."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version_id = s3.put_object(Bucket=bucket, Key="k", Body=b"kept")["VersionId"]
    rule = {"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Date": PAST}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
    wait_until(lambda: "Contents" not in s3.list_objects_v2(Bucket=bucket))
    assert len(s3.list_object_versions(Bucket=bucket)["DeleteMarkers"]) == 1
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=version_id)["Body"].read() == b"kept"


def test_what_does_nothing_here_is_refused(s3: Any, bucket: str) -> None:
    """There is one kind of storage, so a transition would be an empty promise."""
    rule = {"Status": "Enabled", "Filter": {}, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}
    with pytest.raises(ClientError, match="NotImplemented"):
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})
