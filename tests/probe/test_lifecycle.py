"""Lifecycle rules on a real server whose days last a second: what they speak of goes, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.probe.server import Server
from tests.probe.waiting import wait_until

WAIT_S = 60.0
RULES = [
    {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Days": 1}},
    {"ID": "tag", "Status": "Enabled", "Filter": {"Tag": {"Key": "keep", "Value": "no"}}, "Expiration": {"Days": 1}},
    {"ID": "big", "Status": "Enabled", "Filter": {"ObjectSizeGreaterThan": 50_000}, "Expiration": {"Days": 1}},
    {"ID": "far", "Status": "Enabled", "Filter": {"Prefix": "kept/"}, "Expiration": {"Days": 10_000}},
    {"ID": "off", "Status": "Disabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}},
    {
        "ID": "uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": "old/"},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    },
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with short days; each test has its own buckets."""
    running = Server(tmp_path_factory.mktemp("lifecycle") / "frost", None, "--workers", "1")
    running.environment["FROSTBYTE_LIFECYCLE_DAY_S"] = "1"
    try:
        running.start()
        yield running
    finally:
        running.stop()


def names(s3: Any, bucket: str) -> set[str]:
    """The current objects."""
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


def put_rules(s3: Any, bucket: str, rules: list[dict[str, Any]]) -> None:
    """Set them."""
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def wait_for_another_round(s3: Any) -> None:
    """A bucket made now and emptied by its own rule: whatever was due before has been looked at by then."""
    if "sentinel" not in {entry["Name"] for entry in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket="sentinel")
        put_rules(s3, "sentinel", [{"Status": "Enabled", "Filter": {}, "Expiration": {"Days": 1}}])
    s3.put_object(Bucket="sentinel", Key="k", Body=b"x")
    wait_until(lambda: not names(s3, "sentinel"), WAIT_S, "the expiry of the sentinel")


def test_objects_and_uploads_end(server: Server) -> None:
    """By prefix, tag and size; a master that is killed meanwhile begins again."""
    s3 = server.client()
    s3.create_bucket(Bucket="plain")
    for name in ("old/1", "old/2", "kept/1", "other"):
        s3.put_object(Bucket="plain", Key=name, Body=b"x")
    s3.put_object(Bucket="plain", Key="tagged", Body=b"x", Tagging="keep=no&other=1")
    s3.put_object(Bucket="plain", Key="spared", Body=b"x", Tagging="keep=yes")
    s3.put_object(Bucket="plain", Key="big", Body=bytes(50_001))
    ended, open_still = (s3.create_multipart_upload(Bucket="plain", Key=name) for name in ("old/up", "up"))
    s3.upload_part(Bucket="plain", Key="old/up", UploadId=ended["UploadId"], PartNumber=1, Body=bytes(100_000))
    put_rules(s3, "plain", RULES)
    server.kill("master")
    kept = {"kept/1", "other", "spared"}
    wait_until(lambda: names(s3, "plain") == kept, WAIT_S, "the expiry")

    def uploads() -> list[str]:
        return [upload["UploadId"] for upload in s3.list_multipart_uploads(Bucket="plain").get("Uploads", [])]

    wait_until(lambda: uploads() == [open_still["UploadId"]], WAIT_S, "the abort")
    for _ in range(2):
        wait_for_another_round(s3)
    assert names(s3, "plain") == kept
    assert uploads() == [open_still["UploadId"]]
    assert all(s3.get_object(Bucket="plain", Key=name)["Body"].read() == b"x" for name in kept)


def test_versions_end(server: Server) -> None:
    """Hidden first, then removed but for the newest ones and the one that is held; a lone marker goes last."""
    s3 = server.client()
    s3.create_bucket(Bucket="versions", ObjectLockEnabledForBucket=True)
    held = s3.put_object(Bucket="versions", Key="held", Body=b"0", ChecksumAlgorithm="SHA256")["VersionId"]
    s3.put_object_legal_hold(Bucket="versions", Key="held", VersionId=held, LegalHold={"Status": "ON"})
    s3.delete_object(Bucket="versions", Key="held")
    ids = [s3.put_object(Bucket="versions", Key="kept/k", Body=b"%d" % number)["VersionId"] for number in range(4)]
    for name in ("gone", "kept/k"):
        s3.put_object(Bucket="versions", Key=name, Body=b"x")
    put_rules(
        s3,
        "versions",
        [
            {
                "Status": "Enabled",
                "Filter": {"Prefix": "kept/"},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 2},
            },
            {
                "Status": "Enabled",
                "Filter": {"Prefix": "gone"},
                "Expiration": {"Days": 1},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
            {
                "Status": "Enabled",
                "Filter": {"Prefix": "held"},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
        ],
    )

    def history() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        listed = s3.list_object_versions(Bucket="versions")
        for entry in listed.get("Versions", []):
            found.setdefault(entry["Key"], []).append(entry["VersionId"])
        for entry in listed.get("DeleteMarkers", []):
            found.setdefault(entry["Key"], []).append("marker")
        return found

    wait_until(lambda: "gone" not in history(), WAIT_S, "the end of a key, its marker included")
    wait_until(lambda: len(history()["kept/k"]) == 3, WAIT_S, "the end of the oldest versions")
    wait_for_another_round(s3)
    after = history()
    assert after["kept/k"][1:] == [ids[3], ids[2]]
    assert after["held"] == [held, "marker"]
    assert s3.get_object(Bucket="versions", Key="held", VersionId=held)["Body"].read() == b"0"
    assert s3.get_object(Bucket="versions", Key="kept/k")["Body"].read() == b"x"
