"""Object lock through the socket: what is locked cannot be deleted or replaced, by nobody, in no way."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.s3gw.gateway import BOB, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

_numbers = itertools.count(1)
LATER = datetime(2090, 1, 1, tzinfo=UTC)
SOONER = datetime(2089, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def root(gateway: Gateway) -> Any:
    """The root user's client."""
    return gateway.client("root")


@pytest.fixture
def vault(s3: Any) -> str:
    """A new bucket with object lock."""
    name = f"vault-{next(_numbers)}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def put(s3: Any, bucket: str, name: str = "k", **arguments: Any) -> str:
    """The version id of a new object."""
    return str(s3.put_object(Bucket=bucket, Key=name, Body=b"kept", **arguments)["VersionId"])


def retention(mode: str, until: datetime = LATER) -> dict[str, Any]:
    """As boto3 wants and gives it."""
    return {"Mode": mode, "RetainUntilDate": until}


def lock_arguments(mode: str, until: datetime = LATER) -> dict[str, Any]:
    """The same as arguments of a write."""
    return {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}


def default_rule(mode: str, **period: int) -> dict[str, Any]:
    """An object lock configuration with a default retention."""
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": mode, **period}}}


def shown_lock(s3: Any, bucket: str, name: str = "k") -> tuple[str | None, datetime | None, str | None]:
    """Mode, date and legal hold that a HEAD shows; a GET shows the same."""
    head, got = s3.head_object(Bucket=bucket, Key=name), s3.get_object(Bucket=bucket, Key=name)
    names = ("ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus")
    assert [head.get(field) for field in names] == [got.get(field) for field in names]
    return head.get(names[0]), head.get(names[1]), head.get(names[2])


# ------------------------------------------------------------------ compliance


def test_nobody_deletes_a_compliance_locked_version(s3: Any, root: Any, vault: str) -> None:
    """Not its owner, not root, not with bypass, not in a list, not with the bucket, not after weakening the lock."""
    version_id = put(s3, vault, **lock_arguments("COMPLIANCE"))
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id}
    for client in (s3, root):
        for bypass in ({}, {"BypassGovernanceRetention": True}):
            refused = refusal(client.delete_object, **this, **bypass)
            assert (refused.code, refused.status) == ("AccessDenied", 403)
            assert "object lock" in refused.error["Message"]
            listed = {"Objects": [{"Key": "k", "VersionId": version_id}]}
            (error,) = client.delete_objects(Bucket=vault, Delete=listed, **bypass)["Errors"]
            assert (error["Code"], error["VersionId"]) == ("AccessDenied", version_id)
            weaker = (retention("COMPLIANCE", SOONER), retention("GOVERNANCE"), {})
            for wanted in weaker:
                assert refusal(client.put_object_retention, **this, Retention=wanted, **bypass).code == "AccessDenied"
        suspended = {"Status": "Suspended"}
        refused = refusal(client.put_bucket_versioning, Bucket=vault, VersioningConfiguration=suspended)
        assert (refused.code, refused.status) == ("InvalidBucketState", 409)
        assert refusal(client.delete_bucket, Bucket=vault).code == "BucketNotEmpty"
    assert s3.get_object(**this)["Body"].read() == b"kept"
    assert s3.get_object_retention(**this)["Retention"] == retention("COMPLIANCE")


def test_what_a_locked_key_still_allows(s3: Any, vault: str) -> None:
    """Newer versions and a marker on top, and their removal; a longer lock; the locked version stays readable."""
    version_id = put(s3, vault, **lock_arguments("COMPLIANCE", SOONER))
    newer = put(s3, vault)
    marker = s3.delete_object(Bucket=vault, Key="k")["VersionId"]
    for free in (newer, marker):
        s3.delete_object(Bucket=vault, Key="k", VersionId=free)
    s3.put_object_retention(Bucket=vault, Key="k", Retention=retention("COMPLIANCE"))
    assert shown_lock(s3, vault) == ("COMPLIANCE", LATER, None)
    assert s3.get_object(Bucket=vault, Key="k", VersionId=version_id)["Body"].read() == b"kept"


# ------------------------------------------------------------------ governance and legal hold


def test_governance_yields_to_bypass_alone(s3: Any, root: Any, vault: str) -> None:
    """Root needs to ask for it as well."""
    version_id = put(s3, vault, **lock_arguments("GOVERNANCE"))
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id}
    for client in (s3, root):
        assert refusal(client.delete_object, **this).code == "AccessDenied"
        assert refusal(client.put_object_retention, **this, Retention=retention("COMPLIANCE")).code == "AccessDenied"
        assert refusal(client.put_object_retention, **this, Retention={}).code == "AccessDenied"
    s3.put_object_retention(**this, Retention=retention("GOVERNANCE", SOONER), BypassGovernanceRetention=True)
    assert s3.get_object_retention(**this)["Retention"] == retention("GOVERNANCE", SOONER)
    s3.delete_object(**this, BypassGovernanceRetention=True)
    assert refusal(s3.head_object, **this).status == 404


def test_governance_lifted_by_an_empty_retention(s3: Any, vault: str) -> None:
    """With bypass; then it goes like any other version."""
    version_id = put(s3, vault, **lock_arguments("GOVERNANCE"))
    s3.put_object_retention(Bucket=vault, Key="k", Retention={}, BypassGovernanceRetention=True)
    assert shown_lock(s3, vault) == (None, None, None)
    assert refusal(s3.get_object_retention, Bucket=vault, Key="k").code == "NoSuchObjectLockConfiguration"
    s3.delete_object(Bucket=vault, Key="k", VersionId=version_id)


def test_bypass_takes_a_permission_of_its_own(gateway: Gateway, s3: Any, vault: str) -> None:
    """Who may delete versions may not therefore pass over a retention; alone and in a list."""
    version_id, free = put(s3, vault, **lock_arguments("GOVERNANCE")), put(s3, vault, "free")
    allowed = ["s3:DeleteObjectVersion"]
    bob = gateway.client("bob")

    def allow() -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": BOB.canonical_id},
            "Action": allowed,
            "Resource": f"arn:aws:s3:::{vault}/*",
        }
        s3.put_bucket_policy(Bucket=vault, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))

    allow()
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id, "BypassGovernanceRetention": True}
    assert refusal(bob.delete_object, **this).code == "AccessDenied"
    listed = [{"Key": "k", "VersionId": version_id}, {"Key": "free", "VersionId": free}]
    done = bob.delete_objects(Bucket=vault, Delete={"Objects": listed}, BypassGovernanceRetention=True)
    assert [one["Key"] for one in done["Errors"]] == ["k"]
    assert [one["Key"] for one in done["Deleted"]] == ["free"]
    allowed.append("s3:BypassGovernanceRetention")
    allow()
    bob.delete_object(**this)
    assert refusal(s3.head_object, Bucket=vault, Key="k", VersionId=version_id).status == 404


def test_a_legal_hold_stands_until_it_is_lifted(s3: Any, root: Any, vault: str) -> None:
    """Beside any retention; bypass does not concern it."""
    version_id = put(s3, vault)
    assert s3.get_object_legal_hold(Bucket=vault, Key="k")["LegalHold"] == {"Status": "OFF"}
    s3.put_object_legal_hold(Bucket=vault, Key="k", LegalHold={"Status": "ON"})
    assert shown_lock(s3, vault) == (None, None, "ON")
    this = {"Bucket": vault, "Key": "k", "VersionId": version_id}
    for client in (s3, root):
        assert refusal(client.delete_object, **this, BypassGovernanceRetention=True).code == "AccessDenied"
    s3.put_object_legal_hold(**this, LegalHold={"Status": "OFF"})
    assert s3.get_object_legal_hold(**this)["LegalHold"] == {"Status": "OFF"}
    s3.delete_object(**this)


def test_locks_of_one_key_are_apart(s3: Any, vault: str) -> None:
    """A lock is of a version, by its id or of the current one."""
    first, second = put(s3, vault), put(s3, vault)
    s3.put_object_retention(Bucket=vault, Key="k", VersionId=first, Retention=retention("GOVERNANCE"))
    assert shown_lock(s3, vault) == (None, None, None)
    s3.delete_object(Bucket=vault, Key="k", VersionId=second)
    assert shown_lock(s3, vault) == ("GOVERNANCE", LATER, None)


def test_a_null_version_from_before_is_locked_like_any_other(s3: Any, bucket: str) -> None:
    """Object lock comes to a bucket that has objects already."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"kept")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    s3.put_object_retention(Bucket=bucket, Key="k", VersionId="null", Retention=retention("COMPLIANCE"))
    assert refusal(s3.delete_object, Bucket=bucket, Key="k", VersionId="null").code == "AccessDenied"
    put(s3, bucket)
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["Body"].read() == b"kept"


# ------------------------------------------------------------------ the configuration of a bucket


def test_configuration(s3: Any, vault: str) -> None:
    """Without a rule at first; then what was put. The bucket is versioned."""
    assert s3.get_bucket_versioning(Bucket=vault)["Status"] == "Enabled"
    for wanted in (
        {"ObjectLockEnabled": "Enabled"},
        default_rule("GOVERNANCE", Days=3),
        default_rule("COMPLIANCE", Years=2),
        {"ObjectLockEnabled": "Enabled"},
    ):
        s3.put_object_lock_configuration(Bucket=vault, ObjectLockConfiguration=wanted)
        assert s3.get_object_lock_configuration(Bucket=vault)["ObjectLockConfiguration"] == wanted


def test_object_lock_needs_versioning(s3: Any, bucket: str) -> None:
    """Enabled; then it may come to an existing bucket, and versioning is not suspended any more."""
    enable = {"Bucket": bucket, "ObjectLockConfiguration": default_rule("GOVERNANCE", Days=1)}
    for state in (None, "Suspended"):
        if state:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": state})
        refused = refusal(s3.put_object_lock_configuration, **enable)
        assert (refused.code, refused.status) == ("InvalidBucketState", 409)
        missing = refusal(s3.get_object_lock_configuration, Bucket=bucket)
        assert (missing.code, missing.status) == ("ObjectLockConfigurationNotFoundError", 404)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object_lock_configuration(**enable)
    suspended = {"Status": "Suspended"}
    assert refusal(s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=suspended).code == (
        "InvalidBucketState"
    )


def test_configurations_that_are_refused(s3: Any, vault: str) -> None:
    """And the one that was there stays."""
    kept = s3.get_object_lock_configuration(Bucket=vault)["ObjectLockConfiguration"]
    for wanted, code in (
        (default_rule("GOVERNANCE", Days=0), "InvalidRetentionPeriod"),
        (default_rule("GOVERNANCE", Days=1, Years=1), "MalformedXML"),
        (default_rule("governance", Days=1), "MalformedXML"),
        (default_rule("COMPLIANCE", Years=101), "InvalidArgument"),
        ({"ObjectLockEnabled": "Disabled"}, "MalformedXML"),
    ):
        refused = refusal(s3.put_object_lock_configuration, Bucket=vault, ObjectLockConfiguration=wanted)
        assert (refused.code, refused.status) == (code, 400)
    assert s3.get_object_lock_configuration(Bucket=vault)["ObjectLockConfiguration"] == kept


def test_a_bucket_without_object_lock(s3: Any, bucket: str) -> None:
    """Nothing of it can be read or written there."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    this = {"Bucket": bucket, "Key": "k"}
    for call, arguments in (
        (s3.get_object_retention, {}),
        (s3.put_object_retention, {"Retention": retention("GOVERNANCE")}),
        (s3.get_object_legal_hold, {}),
        (s3.put_object_legal_hold, {"LegalHold": {"Status": "ON"}}),
        (s3.put_object, {"ObjectLockLegalHoldStatus": "ON"}),
        (s3.put_object, lock_arguments("GOVERNANCE")),
        (s3.create_multipart_upload, lock_arguments("GOVERNANCE")),
        (s3.copy_object, {"CopySource": f"{bucket}/k", **lock_arguments("GOVERNANCE")}),
    ):
        refused = refusal(call, **this, **arguments)
        assert (refused.code, refused.status) == ("InvalidRequest", 400)


def test_markers_and_missing_keys_have_no_lock(s3: Any, vault: str) -> None:
    """405 for a marker by its id, 404 for the rest."""
    marker = s3.delete_object(Bucket=vault, Key="k")["VersionId"]
    calls = (
        (s3.get_object_retention, {}),
        (s3.put_object_retention, {"Retention": retention("GOVERNANCE")}),
        (s3.get_object_legal_hold, {}),
        (s3.put_object_legal_hold, {"LegalHold": {"Status": "ON"}}),
    )
    for call, arguments in calls:
        assert refusal(call, Bucket=vault, Key="k", VersionId=marker, **arguments).code == "MethodNotAllowed"
        assert refusal(call, Bucket=vault, Key="k", **arguments).code == "NoSuchKey"
        assert refusal(call, Bucket=vault, Key="none", **arguments).code == "NoSuchKey"
        assert refusal(call, Bucket=vault, Key="k", VersionId="0" * 32, **arguments).code == "NoSuchVersion"


# ------------------------------------------------------------------ how a version gets its lock


def ends_within(until: datetime | None, days: int) -> bool:
    """Whether a default retention of so many days began within the last minutes."""
    assert until is not None
    return timedelta(days=days, minutes=-10) < until - datetime.now(UTC) <= timedelta(days=days)


def complete(s3: Any, bucket: str, **arguments: Any) -> None:
    """An object of one part under the key `k`."""
    upload = {"Bucket": bucket, "Key": "k"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **arguments)["UploadId"]
    etag = s3.upload_part(**upload, PartNumber=1, Body=b"kept")["ETag"]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})


def test_the_default_is_for_every_new_version(s3: Any, vault: str) -> None:
    """PUT, COPY and Complete; what was there before stays free."""
    before = put(s3, vault, "before")
    s3.put_object_lock_configuration(Bucket=vault, ObjectLockConfiguration=default_rule("GOVERNANCE", Days=3))
    put(s3, vault, "put")
    s3.copy_object(Bucket=vault, Key="copied", CopySource=f"{vault}/before")
    complete(s3, vault)
    for name in ("put", "copied", "k"):
        mode, until, _ = shown_lock(s3, vault, name)
        assert mode == "GOVERNANCE" and ends_within(until, 3)
    s3.delete_object(Bucket=vault, Key="before", VersionId=before)


def test_a_lock_of_its_own_wins_over_the_default(s3: Any, vault: str) -> None:
    """Mode and date; a legal hold alone stands beside the default."""
    s3.put_object_lock_configuration(Bucket=vault, ObjectLockConfiguration=default_rule("COMPLIANCE", Years=1))
    put(s3, vault, **lock_arguments("GOVERNANCE"))
    assert shown_lock(s3, vault) == ("GOVERNANCE", LATER, None)
    s3.copy_object(Bucket=vault, Key="c", CopySource=f"{vault}/k", **lock_arguments("GOVERNANCE", SOONER))
    assert shown_lock(s3, vault, "c") == ("GOVERNANCE", SOONER, None)
    complete(s3, vault, **lock_arguments("GOVERNANCE"), ObjectLockLegalHoldStatus="ON")
    assert shown_lock(s3, vault) == ("GOVERNANCE", LATER, "ON")
    put(s3, vault, ObjectLockLegalHoldStatus="ON")
    mode, until, hold = shown_lock(s3, vault)
    assert (mode, hold) == ("COMPLIANCE", "ON") and until is not None


def test_a_copy_does_not_inherit_a_lock(s3: Any, vault: str) -> None:
    """Neither a retention nor a hold, with metadata copied or replaced."""
    put(s3, vault, ObjectLockLegalHoldStatus="ON", **lock_arguments("COMPLIANCE"))
    for directive in ("COPY", "REPLACE"):
        s3.copy_object(Bucket=vault, Key="c", CopySource=f"{vault}/k", MetadataDirective=directive)
        assert shown_lock(s3, vault, "c") == (None, None, None)


def test_lock_headers_that_are_refused(s3: Any, vault: str) -> None:
    """InvalidArgument, and nothing is stored."""
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for arguments in (
        {"ObjectLockMode": "GOVERNANCE"},
        {"ObjectLockRetainUntilDate": LATER},
        lock_arguments("GOVERNANCE", past),
        lock_arguments("GUARDED"),
        {"ObjectLockLegalHoldStatus": "MAYBE"},
    ):
        refused = refusal(s3.put_object, Bucket=vault, Key="k", Body=b"x", **arguments)
        assert (refused.code, refused.status) == ("InvalidArgument", 400)
    assert refusal(s3.head_object, Bucket=vault, Key="k").status == 404


def test_a_locked_body_must_be_vouched_for(gateway: Gateway, s3: Any, vault: str) -> None:
    """A Content-MD5 or a checksum, asked for before the body; also under a default retention."""
    headers = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": "2090-01-01T00:00:00Z"}
    md5 = {"Content-MD5": "9tEUI+31x+YHk8Xo8oO1Dg=="}
    answer = send(gateway, "PUT", f"/{vault}/k", b"kept", headers)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    s3.put_object_lock_configuration(Bucket=vault, ObjectLockConfiguration=default_rule("GOVERNANCE", Days=1))
    assert send(gateway, "PUT", f"/{vault}/k", b"kept").code == "InvalidRequest"
    assert send(gateway, "PUT", f"/{vault}/k", b"kept", headers | md5).code == "BadDigest"
    assert send(gateway, "PUT", f"/{vault}/k", b"kept", headers | {"x-amz-checksum-crc32": "AAAAAA=="}).status == 400
    assert refusal(s3.head_object, Bucket=vault, Key="k").status == 404


def test_putting_a_lock_takes_a_permission(gateway: Gateway, s3: Any, vault: str) -> None:
    """Who may only write objects cannot make them last for ever."""
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": BOB.canonical_id},
        "Action": ["s3:PutObject", "s3:GetObject"],
        "Resource": f"arn:aws:s3:::{vault}/*",
    }
    s3.put_bucket_policy(Bucket=vault, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    bob = gateway.client("bob")
    for arguments in (lock_arguments("COMPLIANCE"), {"ObjectLockLegalHoldStatus": "ON"}):
        assert refusal(bob.put_object, Bucket=vault, Key="k", Body=b"x", **arguments).code == "AccessDenied"
    bob.put_object(Bucket=vault, Key="k", Body=b"x")
    put(s3, vault, ObjectLockLegalHoldStatus="ON", **lock_arguments("GOVERNANCE"))
    assert shown_lock(bob, vault) == (None, None, None)


def test_enabling_by_another_word(gateway: Gateway) -> None:
    """No bucket without the lock that somebody meant to ask for."""
    answer = send(gateway, "PUT", "/locked-maybe", headers={"x-amz-bucket-object-lock-enabled": "yes"})
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert send(gateway, "HEAD", "/locked-maybe").status == 404
