"""Bucket policies through the socket: what they let in, what they keep out, and that they are read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.s3gw.gateway import ALICE, BOB, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

BOBS_ARN = "arn:aws:iam:::user/bob"
NOBODYS_ARN = "arn:aws:iam:::user/nobody"


def statement(bucket: str, action: str | list[str], path: str = "/*", **changes: Any) -> dict[str, Any]:
    """One that allows Bob something."""
    resource = f"arn:aws:s3:::{bucket}{path}"
    return {"Effect": "Allow", "Principal": {"AWS": BOBS_ARN}, "Action": action, "Resource": resource} | changes


def put_policy(s3: Any, bucket: str, *statements: dict[str, Any]) -> str:
    """Put it, and return its text."""
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    return text


@pytest.fixture
def bob(gateway: Gateway) -> Any:
    """Bob's client: he owns nothing here."""
    return gateway.client("bob")


def test_a_policy_is_read_back_and_deleted(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """Byte for byte; others may not see it, and deleting it twice is no error."""
    assert refusal(s3.get_bucket_policy, Bucket=bucket).code == "NoSuchBucketPolicy"
    text = put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    answer = send(gateway, "GET", f"/{bucket}?policy")
    assert answer.body.decode() == text and answer.headers["content-type"] == "application/json"
    assert refusal(bob.get_bucket_policy, Bucket=bucket).code == "AccessDenied"
    for _ in range(2):
        assert s3.delete_bucket_policy(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refusal(s3.get_bucket_policy, Bucket=bucket).status == 404


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("x", "Policies must be valid JSON"),
        ('{"Statement": []}', "Statement is empty"),
        (json.dumps({"Statement": [statement("other", "s3:GetObject")]}), "Policy has invalid resource"),
        (json.dumps({"Statement": [statement("*", "s3:Nothing")]}), "Policy has invalid action"),
        (json.dumps({"Statement": [statement("*", "s3:*") | {"Principal": {"AWS": NOBODYS_ARN}}]}), "principal"),
    ],
)
def test_policies_that_are_refused(s3: Any, bucket: str, policy: str, message: str) -> None:
    """400 MalformedPolicy, and the bucket keeps what it had."""
    refused = refusal(s3.put_bucket_policy, Bucket=bucket, Policy=policy)
    assert (refused.code, refused.status) == ("MalformedPolicy", 400) and message in refused.error["Message"]
    assert refusal(s3.get_bucket_policy, Bucket=bucket).code == "NoSuchBucketPolicy"


def test_each_action_is_allowed_on_its_own(s3: Any, bob: Any, bucket: str) -> None:
    """Reading is not listing, writing is not reading, deleting is neither."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert refusal(bob.get_object, Bucket=bucket, Key="k").code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert refusal(bob.list_objects_v2, Bucket=bucket).code == "AccessDenied"
    assert refusal(bob.put_object, Bucket=bucket, Key="n", Body=b"").code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:ListBucket", ""), statement(bucket, "s3:PutObject"))
    assert bob.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    bob.put_object(Bucket=bucket, Key="n", Body=b"")
    assert refusal(bob.get_object, Bucket=bucket, Key="k").code == "AccessDenied"
    assert refusal(bob.delete_object, Bucket=bucket, Key="k").code == "AccessDenied"
    assert refusal(bob.delete_bucket, Bucket=bucket).code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:DeleteObject"))
    bob.delete_object(Bucket=bucket, Key="k")
    assert refusal(s3.head_object, Bucket=bucket, Key="k").status == 404


def test_a_deny_binds_the_owner_but_for_the_policy(gateway: Gateway, s3: Any, bucket: str) -> None:
    """So that it can be taken away again; the root user is not bound."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    both = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    put_policy(s3, bucket, {"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": both})
    for call in (s3.get_object, s3.head_object, s3.delete_object):
        assert refusal(call, Bucket=bucket, Key="k").status == 403
    assert refusal(s3.list_objects_v2, Bucket=bucket).code == "AccessDenied"
    assert gateway.client("root").get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert "Deny" in s3.get_bucket_policy(Bucket=bucket)["Policy"]
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


def test_who_does_not_sign(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Nothing until a policy is for everybody; then what it says, with a body, and no more."""
    s3.put_object(Bucket=bucket, Key="open/k", Body=b"x")
    path = f"/{bucket}/open/k"
    assert send(gateway, "GET", path, name=None).code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, ["s3:GetObject", "s3:PutObject"], "/open/*", Principal="*"))
    assert send(gateway, "GET", path, name=None).body == b"x"
    assert send(gateway, "PUT", path, b"new", name=None).status == 200
    assert send(gateway, "GET", path, name=None).body == b"new"
    assert send(gateway, "PUT", f"/{bucket}/k", b"new", name=None).code == "AccessDenied"
    assert send(gateway, "DELETE", path, name=None).code == "AccessDenied"
    assert send(gateway, "GET", f"/{bucket}", name=None).code == "AccessDenied"


def test_an_unsigned_body_is_checked(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Its digest and its framing, as of a signed one; a body of signed chunks needs a signature."""
    put_policy(s3, bucket, statement(bucket, ["s3:PutObject", "s3:GetObject"], Principal="*"))
    path = f"/{bucket}/k"
    wrong = send(gateway, "PUT", path, b"x", {"x-amz-content-sha256": "0" * 64}, name=None)
    assert wrong.code == "XAmzContentSHA256Mismatch"
    signed = {"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "x-amz-decoded-content-length": "1"}
    assert send(gateway, "PUT", path, b"1\r\nx\r\n0\r\n\r\n", signed, name=None).code == "InvalidRequest"
    framed = {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "x-amz-decoded-content-length": "1"}
    assert send(gateway, "PUT", path, b"1\r\nx\r\n0\r\n\r\n", framed, name=None).status == 200
    assert send(gateway, "GET", path, name=None).body == b"x"


def test_what_is_not_there_is_told_to_who_may_list(s3: Any, bob: Any, bucket: str) -> None:
    """404 for them, 403 for everybody else; the prefix of the list is the key that was asked for."""
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    assert refusal(bob.get_object, Bucket=bucket, Key="open/none").code == "AccessDenied"
    listing = statement(bucket, "s3:ListBucket", "", Condition={"StringLike": {"s3:prefix": "open/*"}})
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"), listing)
    assert refusal(bob.get_object, Bucket=bucket, Key="open/none").code == "NoSuchKey"
    assert refusal(bob.get_object, Bucket=bucket, Key="none").code == "AccessDenied"
    put_policy(s3, bucket, listing)
    assert refusal(bob.head_object, Bucket=bucket, Key="open/none").status == 404
    assert refusal(bob.head_object, Bucket=bucket, Key="none").status == 403
    assert bob.list_objects_v2(Bucket=bucket, Prefix="open/")["KeyCount"] == 0
    assert refusal(bob.list_objects_v2, Bucket=bucket).code == "AccessDenied"


def test_conditions_on_tags(s3: Any, bob: Any, bucket: str) -> None:
    """Of the object that is there, and of those that a request brings in a header or a body."""
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", Tagging="security=public")
    s3.put_object(Bucket=bucket, Key="shut", Body=b"x", Tagging="security=private")
    existing = {"StringEquals": {"s3:ExistingObjectTag/security": "public"}}
    requested = {"StringEquals": {"s3:RequestObjectTag/security": "public"}}
    put_policy(
        s3,
        bucket,
        statement(bucket, ["s3:GetObject", "s3:GetObjectTagging"], Condition=existing),
        statement(bucket, ["s3:PutObject", "s3:PutObjectTagging"], Condition=requested),
    )
    assert bob.get_object(Bucket=bucket, Key="open")["Body"].read() == b"x"
    assert bob.get_object_tagging(Bucket=bucket, Key="open")["TagSet"]
    for call in (bob.get_object, bob.get_object_tagging, bob.head_object):
        assert refusal(call, Bucket=bucket, Key="shut").status == 403
    assert refusal(bob.put_object, Bucket=bucket, Key="new", Body=b"").code == "AccessDenied"
    bob.put_object(Bucket=bucket, Key="new", Body=b"", Tagging="security=public")
    private = {"TagSet": [{"Key": "security", "Value": "private"}]}
    public = {"TagSet": [{"Key": "security", "Value": "public"}]}
    assert refusal(bob.put_object_tagging, Bucket=bucket, Key="shut", Tagging=private).code == "AccessDenied"
    bob.put_object_tagging(Bucket=bucket, Key="shut", Tagging=public)
    assert s3.get_object_tagging(Bucket=bucket, Key="shut")["TagSet"] == public["TagSet"]


def test_a_named_version_needs_its_own_permission(s3: Any, bob: Any, bucket: str) -> None:
    """Reading and deleting a version are not reading and deleting the object."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version_id = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    put_policy(s3, bucket, statement(bucket, ["s3:GetObject", "s3:DeleteObject"]))
    assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"1"
    named = {"Bucket": bucket, "Key": "k", "VersionId": version_id}
    assert refusal(bob.get_object, **named).code == "AccessDenied"
    assert refusal(bob.delete_object, **named).code == "AccessDenied"
    assert bob.delete_object(Bucket=bucket, Key="k")["DeleteMarker"]
    put_policy(s3, bucket, statement(bucket, ["s3:GetObjectVersion", "s3:DeleteObjectVersion"]))
    assert bob.get_object(**named)["Body"].read() == b"1"
    bob.delete_object(**named)
    assert refusal(s3.get_object, **named).status == 404


def test_deleting_many_is_decided_key_by_key(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """What may not be deleted is named, and stays."""
    for key in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    keys = {"Objects": [{"Key": key} for key in ("a", "b", "c")]}
    assert refusal(bob.delete_objects, Bucket=bucket, Delete=keys).code == "AccessDenied"
    assert send(gateway, "POST", f"/{bucket}?delete", b"<Delete/>", name=None).code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:DeleteObject", "/b"))
    answer = bob.delete_objects(Bucket=bucket, Delete=keys)
    assert [one["Key"] for one in answer["Deleted"]] == ["b"]
    assert [(one["Key"], one["Code"]) for one in answer["Errors"]] == [("a", "AccessDenied"), ("c", "AccessDenied")]
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["a", "c"]


def test_copies_need_both_ends(s3: Any, bob: Any, bucket: str) -> None:
    """Reading the source with its tags, and writing the target with them."""
    bob.create_bucket(Bucket=f"bobs-{bucket}")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"1")
    s3.put_object(Bucket=bucket, Key="tagged", Body=b"2", Tagging="a=b")

    def copy(key: str, **more: str) -> dict[str, Any]:
        return {"Bucket": f"bobs-{bucket}", "Key": key, "CopySource": {"Bucket": bucket, "Key": key}} | more

    assert refusal(bob.copy_object, **copy("plain")).code == "AccessDenied"
    assert refusal(bob.copy_object, **copy("none")).code == "AccessDenied"
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    bob.copy_object(**copy("plain"))
    assert bob.get_object(Bucket=f"bobs-{bucket}", Key="plain")["Body"].read() == b"1"
    assert refusal(bob.copy_object, **copy("none")).code == "AccessDenied"
    assert refusal(bob.copy_object, **copy("tagged")).code == "AccessDenied"
    bob.copy_object(**copy("tagged", TaggingDirective="REPLACE"))
    put_policy(
        s3, bucket, statement(bucket, ["s3:GetObject", "s3:GetObjectTagging"]), statement(bucket, "s3:ListBucket", "")
    )
    bob.copy_object(**copy("tagged"))
    assert bob.get_object_tagging(Bucket=f"bobs-{bucket}", Key="tagged")["TagSet"]
    assert refusal(bob.copy_object, **copy("none")).code == "NoSuchKey"


def test_what_a_put_brings_needs_permissions_of_its_own(s3: Any, bob: Any, bucket: str) -> None:
    """Tags do; an ACL does not, as the object is the writer's, but is kept out by a Deny."""
    put_policy(s3, bucket, statement(bucket, "s3:PutObject"))
    assert refusal(bob.put_object, Bucket=bucket, Key="k", Body=b"", Tagging="a=b").code == "AccessDenied"
    bob.put_object(Bucket=bucket, Key="k", Body=b"", ACL="public-read")
    put_policy(
        s3,
        bucket,
        statement(bucket, ["s3:PutObject", "s3:PutObjectTagging"]),
        statement(bucket, "s3:PutObjectAcl", Effect="Deny"),
    )
    assert refusal(bob.put_object, Bucket=bucket, Key="k", Body=b"", ACL="public-read").code == "AccessDenied"
    bob.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=b")


def test_an_upload_is_its_initiators(s3: Any, bob: Any, bucket: str) -> None:
    """Who began it may look at it and end it; the bucket's owner as well, and nobody else."""
    put_policy(s3, bucket, statement(bucket, "s3:PutObject"))
    bobs = {"Bucket": bucket, "Key": "k", "UploadId": bob.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    alices = {"Bucket": bucket, "Key": "k", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    bob.upload_part(**bobs, PartNumber=1, Body=b"x")
    assert bob.list_parts(**bobs)["Initiator"]["ID"] == BOB.canonical_id
    assert s3.list_parts(**bobs)["Owner"]["ID"] == BOB.canonical_id
    assert refusal(bob.list_parts, **alices).code == "AccessDenied"
    assert refusal(bob.abort_multipart_upload, **alices).code == "AccessDenied"
    assert refusal(bob.abort_multipart_upload, **(bobs | {"UploadId": "none"})).code == "AccessDenied"
    bob.abort_multipart_upload(**bobs)
    s3.abort_multipart_upload(**alices)


@pytest.mark.parametrize(
    ("condition", "headers", "status"),
    [
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, {}, 200),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {}, 403),
        ({"Bool": {"aws:SecureTransport": "true"}}, {}, 403),
        ({"StringLike": {"aws:Referer": "http://good/*"}}, {"Referer": "http://good/page"}, 200),
        ({"StringLike": {"aws:Referer": "http://good/*"}}, {"Referer": "http://bad/page"}, 403),
        ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, {}, 200),
        ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, {}, 403),
        ({"StringEquals": {"aws:username": "bob"}}, {}, 200),
        ({"StringEquals": {"s3:authType": "REST-HEADER"}}, {}, 200),
        ({"NumericLessThan": {"s3:signatureAge": "600000"}}, {}, 200),
    ],
)
def test_conditions_of_a_request(
    gateway: Gateway, s3: Any, bucket: str, condition: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    """As the gateway sees it: where it comes from, when, how signed."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    put_policy(s3, bucket, statement(bucket, "s3:GetObject", Condition=condition))
    assert send(gateway, "GET", f"/{bucket}/k", headers=headers, name="bob").status == status


def test_an_expected_owner(s3: Any, bob: Any, bucket: str) -> None:
    """Another one is denied whoever asks, the owner included; for the source of a copy as well."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.head_object(Bucket=bucket, Key="k", ExpectedBucketOwner=ALICE.canonical_id)
    assert refusal(s3.head_object, Bucket=bucket, Key="k", ExpectedBucketOwner=BOB.canonical_id).status == 403
    copy = {"Bucket": bucket, "Key": "n", "CopySource": {"Bucket": bucket, "Key": "k"}}
    assert refusal(s3.copy_object, **copy, ExpectedSourceBucketOwner=BOB.canonical_id).code == "AccessDenied"
    s3.copy_object(**copy, ExpectedSourceBucketOwner=ALICE.canonical_id)


def test_the_status_of_a_policy(s3: Any, bucket: str) -> None:
    """Public or not."""
    assert not s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    put_policy(s3, bucket, statement(bucket, "s3:GetObject"))
    assert not s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    put_policy(s3, bucket, statement(bucket, "s3:GetObject", Principal="*"))
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
