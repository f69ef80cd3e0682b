"""boto3: object lock, read back by what can no longer be deleted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.probe.waiting import wait_until

pytestmark = pytest.mark.same_over_https

LATER = datetime(2090, 1, 1, tzinfo=UTC)
COMPLIANCE_S = 3
"""how long the one compliance lock lasts, which nobody can lift"""
EXPIRY_S_MAX = 60


@pytest.fixture
def vault(s3: Any, new_bucket_name: Callable[[], str]) -> str:
    """A bucket with object lock."""
    name = new_bucket_name()
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def is_refused(call: Callable[..., Any], **arguments: Any) -> bool:
    """Whether the answer was AccessDenied; anything but that and success is raised."""
    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        return True
    return False


def test_a_compliance_lock_holds_until_it_ends(s3: Any, vault: str) -> None:
    """Against its owner, who is root here, with bypass as well; then the version goes like any other."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=COMPLIANCE_S)  # botocore sends whole seconds
    lock = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
    version_id = s3.put_object(Bucket=vault, Key="k", Body=b"kept", **lock)["VersionId"]
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id, "BypassGovernanceRetention": True}
    assert is_refused(s3.delete_object, **this) or datetime.now(UTC) >= until
    wait_until(lambda: not is_refused(s3.delete_object, **this), EXPIRY_S_MAX, "the lock to end")
    assert datetime.now(UTC) >= until
    assert "Versions" not in s3.list_object_versions(Bucket=vault)


@pytest.mark.s3_operation("PutObjectRetention", "GetObjectRetention")
def test_governance_and_its_bypass(s3: Any, vault: str) -> None:
    """Shown by HEAD, in the way of DELETE, lifted on demand."""
    version_id = s3.put_object(Bucket=vault, Key="k", Body=b"kept")["VersionId"]
    retention = {"Mode": "GOVERNANCE", "RetainUntilDate": LATER}
    s3.put_object_retention(Bucket=vault, Key="k", Retention=retention)
    head = s3.head_object(Bucket=vault, Key="k")
    assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == ("GOVERNANCE", LATER)
    assert s3.get_object_retention(Bucket=vault, Key="k")["Retention"] == retention
    assert is_refused(s3.delete_object, Bucket=vault, Key="k", VersionId=version_id)
    s3.delete_object(Bucket=vault, Key="k", VersionId=version_id, BypassGovernanceRetention=True)
    assert "Versions" not in s3.list_object_versions(Bucket=vault)


@pytest.mark.s3_operation("PutObjectLegalHold")
def test_a_legal_hold(s3: Any, vault: str) -> None:
    """Stands until it is lifted."""
    upload = {"Bucket": vault, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, ObjectLockLegalHoldStatus="ON")["UploadId"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": s3.upload_part(**upload, PartNumber=1, Body=b"kept")["ETag"]}]}
    version_id = s3.complete_multipart_upload(**upload, MultipartUpload=parts)["VersionId"]
    assert s3.get_object(Bucket=vault, Key="k")["ObjectLockLegalHoldStatus"] == "ON"
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id}
    assert is_refused(s3.delete_object, **this, BypassGovernanceRetention=True)
    s3.put_object_legal_hold(**this, LegalHold={"Status": "OFF"})
    s3.delete_object(**this)
    assert "Versions" not in s3.list_object_versions(Bucket=vault)


@pytest.mark.s3_operation("PutObjectLockConfiguration", "GetObjectLockConfiguration")
def test_a_default_retention(s3: Any, vault: str) -> None:
    """New versions are locked by it, and the bucket's versioning stays."""
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 2}}
    configuration = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    s3.put_object_lock_configuration(Bucket=vault, ObjectLockConfiguration=configuration)
    assert s3.get_object_lock_configuration(Bucket=vault)["ObjectLockConfiguration"] == configuration
    version_id = s3.put_object(Bucket=vault, Key="k", Body=b"kept")["VersionId"]
    ends = s3.head_object(Bucket=vault, Key="k")["ObjectLockRetainUntilDate"]
    assert timedelta(days=1, hours=23) < ends - datetime.now(UTC) <= timedelta(days=2)
    assert is_refused(s3.delete_object, Bucket=vault, Key="k", VersionId=version_id)
    with pytest.raises(ClientError, match="InvalidBucketState"):
        s3.put_bucket_versioning(Bucket=vault, VersioningConfiguration={"Status": "Suspended"})
