"""ACLs of buckets and objects through the socket, object ownership, and public access blocks: their effects."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.model import Versioning
from tests.s3gw.gateway import ALICE, BOB, Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
OPEN = {
    "BlockPublicAcls": False,
    "IgnorePublicAcls": False,
    "BlockPublicPolicy": False,
    "RestrictPublicBuckets": False,
}


@pytest.fixture
def bob(gateway: Gateway) -> Any:
    """Bob's client: he owns nothing here."""
    return gateway.client("bob")


def grants(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """(who, what) of a list, as it is shown."""
    found = [(one["Grantee"], one["Permission"]) for one in answer["Grants"]]
    return [(grantee.get("DisplayName") or grantee["URI"].rpartition("/")[2], what) for grantee, what in found]


def own(s3: Any, bucket: str, ownership: str) -> None:
    """Set the ownership of a bucket."""
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": ownership}]})


def block(s3: Any, bucket: str, **switches: bool) -> None:
    """Turn on some of the four."""
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=OPEN | switches)


def test_an_untouched_bucket(s3: Any, bob: Any, bucket: str) -> None:
    """Its owner has full control, nobody else anything, and nothing is configured."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for answer in (s3.get_bucket_acl(Bucket=bucket), s3.get_object_acl(Bucket=bucket, Key="k")):
        assert grants(answer) == [("Alice", "FULL_CONTROL")] and answer["Owner"]["ID"] == ALICE.canonical_id
    for call in (bob.list_objects_v2, bob.get_bucket_acl, bob.head_bucket):
        assert refusal(call, Bucket=bucket).status == 403
    for call in (bob.get_object, bob.head_object, bob.get_object_acl, bob.delete_object):
        assert refusal(call, Bucket=bucket, Key="k").status == 403
    assert refusal(s3.get_bucket_ownership_controls, Bucket=bucket).code == "OwnershipControlsNotFoundError"
    assert refusal(s3.get_public_access_block, Bucket=bucket).code == "NoSuchPublicAccessBlockConfiguration"


@pytest.mark.parametrize(
    ("canned", "shown", "lists", "lists_unsigned", "writes"),
    [
        ("private", [("Alice", "FULL_CONTROL")], False, False, False),
        ("public-read", [("AllUsers", "READ"), ("Alice", "FULL_CONTROL")], True, True, False),
        (
            "public-read-write",
            [("AllUsers", "READ"), ("AllUsers", "WRITE"), ("Alice", "FULL_CONTROL")],
            True,
            True,
            True,
        ),
        ("authenticated-read", [("AuthenticatedUsers", "READ"), ("Alice", "FULL_CONTROL")], True, False, False),
    ],
)
def test_canned_lists_of_a_bucket(
    gateway: Gateway,
    s3: Any,
    bob: Any,
    bucket: str,
    canned: str,
    shown: list[tuple[str, str]],
    lists: bool,
    lists_unsigned: bool,
    writes: bool,
) -> None:
    """What they show, and what they do; objects stay private."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    s3.put_bucket_acl(Bucket=bucket, ACL=canned)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == shown
    assert (send(gateway, "GET", f"/{bucket}", name="bob").status == 200) is lists
    assert (send(gateway, "GET", f"/{bucket}", name=None).status == 200) is lists_unsigned
    assert (send(gateway, "PUT", f"/{bucket}/n", b"y", name="bob").status == 200) is writes
    assert refusal(bob.get_object, Bucket=bucket, Key="k").code == "AccessDenied"
    assert refusal(bob.get_object, Bucket=bucket, Key="none").status == (404 if lists else 403)


def test_a_list_at_the_creation_of_a_bucket(s3: Any, bob: Any, bucket: str) -> None:
    """The same; made again with another list it is refused and unchanged."""
    name = f"made-{bucket}"
    s3.create_bucket(Bucket=name, ACL="public-read")
    assert bob.list_objects_v2(Bucket=name)["KeyCount"] == 0
    assert refusal(s3.create_bucket, Bucket=name).code == "BucketAlreadyExists"
    s3.create_bucket(Bucket=name, ACL="public-read")
    assert grants(s3.get_bucket_acl(Bucket=name))[0] == ("AllUsers", "READ")
    refused = refusal(s3.create_bucket, Bucket=f"{name}-2", ACL="public-read", ObjectOwnership="BucketOwnerEnforced")
    assert refused.code == "InvalidBucketAclWithObjectOwnership"


@pytest.mark.parametrize(
    ("permission", "allowed"),
    [
        ("READ", {"list"}),
        ("WRITE", {"write"}),
        ("READ_ACP", {"read list"}),
        ("WRITE_ACP", {"write list"}),
        ("FULL_CONTROL", {"list", "write", "read list", "write list"}),
    ],
)
def test_grants_to_a_user(s3: Any, bob: Any, bucket: str, permission: str, allowed: set[str]) -> None:
    """Each permission alone; by a document, with the owner's own grant in it."""
    owner = {"ID": ALICE.canonical_id, "Type": "CanonicalUser"}
    policy = {
        "Owner": {"ID": ALICE.canonical_id},
        "Grants": [
            {"Grantee": owner, "Permission": "FULL_CONTROL"},
            {"Grantee": {"ID": BOB.canonical_id, "Type": "CanonicalUser"}, "Permission": permission},
        ],
    }
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("Alice", "FULL_CONTROL"), ("Bob", permission)]
    attempts = {
        "list": lambda: bob.list_objects_v2(Bucket=bucket),
        "write": lambda: bob.put_object(Bucket=bucket, Key="n", Body=b""),
        "read list": lambda: bob.get_bucket_acl(Bucket=bucket),
        "write list": lambda: bob.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy),
    }
    for name, attempt in attempts.items():
        if name in allowed:
            attempt()
        else:
            assert refusal(attempt).code == "AccessDenied", name
    assert refusal(bob.delete_bucket, Bucket=bucket).code == "AccessDenied"


def test_everything_taken_away(s3: Any, bucket: str) -> None:
    """An empty list; the bucket's owner gets in all the same, and can put it right."""
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": {"ID": ALICE.canonical_id}, "Grants": []})
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"] == []
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("Alice", "FULL_CONTROL")]


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"", {}, "MissingSecurityHeader"),
        (b"<x/>", {}, "MalformedACLError"),
        (b"<x/>", {"x-amz-acl": "private"}, "UnexpectedContent"),
        (b"", {"x-amz-acl": "secret"}, "InvalidArgument"),
        (b"", {"x-amz-grant-read": "id=nobody"}, "InvalidArgument"),
        (b"", {"x-amz-grant-read": "uri=http://nowhere"}, "InvalidArgument"),
        (b"", {"x-amz-grant-read": "emailAddress=nobody@nowhere"}, "UnresolvableGrantByEmailAddress"),
        (
            b"<AccessControlPolicy><Owner><ID>x</ID></Owner><AccessControlList/></AccessControlPolicy>",
            {},
            "AccessDenied",
        ),
    ],
)
@pytest.mark.parametrize("path", ["?acl", "/k?acl"])
def test_lists_that_are_refused(
    gateway: Gateway, s3: Any, bucket: str, path: str, body: bytes, headers: dict[str, str], code: str
) -> None:
    """Of the bucket and of an object; both keep what they had."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert send(gateway, "PUT", f"/{bucket}{path}", body, headers).code == code
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == [("Alice", "FULL_CONTROL")]
    assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == [("Alice", "FULL_CONTROL")]


def test_lists_of_objects(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """Given with the object or later; what it holds and when it was modified stays."""
    path = f"/{bucket}/k"
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    before = s3.head_object(Bucket=bucket, Key="k")
    assert send(gateway, "GET", path, name=None).body == b"x"
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="authenticated-read")
    assert send(gateway, "GET", path, name=None).code == "AccessDenied"
    assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.put_object_acl(Bucket=bucket, Key="k", GrantReadACP=f"id={BOB.canonical_id}")
    assert refusal(bob.get_object, Bucket=bucket, Key="k").code == "AccessDenied"
    assert grants(bob.get_object_acl(Bucket=bucket, Key="k")) == [("Bob", "READ_ACP")]
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert refusal(bob.get_object_acl, Bucket=bucket, Key="k").code == "AccessDenied"
    after = s3.head_object(Bucket=bucket, Key="k")
    assert (before["LastModified"], before["ETag"]) == (after["LastModified"], after["ETag"])
    assert refusal(s3.get_object_acl, Bucket=bucket, Key="none").code == "NoSuchKey"
    s3.put_object(Bucket=bucket, Key="k", Body=b"y", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="k", Body=b"z")
    assert send(gateway, "GET", path, name=None).code == "AccessDenied"


def test_copies_and_uploads_take_the_list_of_the_request(gateway: Gateway, s3: Any, bucket: str) -> None:
    """A copy never inherits its source's."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    source = {"Bucket": bucket, "Key": "k"}
    s3.copy_object(Bucket=bucket, Key="plain", CopySource=source)
    s3.copy_object(Bucket=bucket, Key="open", CopySource=source, ACL="public-read")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", ACL="public-read")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload=parts)
    statuses = {
        name: send(gateway, "GET", f"/{bucket}/{name}", name=None).status for name in ("plain", "open", "parts")
    }
    assert statuses == {"plain": 403, "open": 200, "parts": 200}


def test_each_version_has_its_own_list(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Changing one leaves the others."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"2")["VersionId"]
    answer = s3.put_object_acl(Bucket=bucket, Key="k", VersionId=first, ACL="public-read")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-version-id"] == first
    assert send(gateway, "GET", f"/{bucket}/k?versionId={first}", name=None).body == b"1"
    assert send(gateway, "GET", f"/{bucket}/k?versionId={second}", name=None).status == 403
    assert send(gateway, "GET", f"/{bucket}/k", name=None).status == 403
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    assert refusal(s3.get_object_acl, Bucket=bucket, Key="k", VersionId=marker).code == "MethodNotAllowed"


def test_what_somebody_else_wrote_is_his(s3: Any, bob: Any, bucket: str) -> None:
    """The bucket's owner may delete it, and reads it only if he was granted that, as on AWS."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    bob.put_object(Bucket=bucket, Key="his", Body=b"x")
    bob.put_object(Bucket=bucket, Key="given", Body=b"y", ACL="bucket-owner-full-control")
    bob.put_object(Bucket=bucket, Key="shown", Body=b"z", ACL="bucket-owner-read")
    for call in (s3.get_object, s3.head_object, s3.get_object_acl):
        assert refusal(call, Bucket=bucket, Key="his").status == 403
    assert bob.get_object(Bucket=bucket, Key="his")["Body"].read() == b"x"
    assert s3.get_object(Bucket=bucket, Key="given")["Body"].read() == b"y"
    assert grants(s3.get_object_acl(Bucket=bucket, Key="given")) == [("Alice", "FULL_CONTROL"), ("Bob", "FULL_CONTROL")]
    assert s3.get_object(Bucket=bucket, Key="shown")["Body"].read() == b"z"
    assert refusal(s3.put_object_acl, Bucket=bucket, Key="shown", ACL="private").code == "AccessDenied"
    owners = {one["Key"]: one["Owner"]["DisplayName"] for one in s3.list_objects(Bucket=bucket)["Contents"]}
    assert owners == {"his": "Bob", "given": "Bob", "shown": "Bob"}
    s3.delete_object(Bucket=bucket, Key="his")


def test_anonymous_uploads_have_an_owner(gateway: Gateway, s3: Any, bucket: str) -> None:
    """AWS's id of nobody; it is no user's, and cannot change anything later."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert send(gateway, "PUT", f"/{bucket}/k", b"x", name=None).status == 200
    owner = s3.list_objects(Bucket=bucket)["Contents"][0]["Owner"]
    assert owner == {"ID": "65a011a29cdf8ec533ec3d1ccaae921c", "DisplayName": "anonymous"}
    assert send(gateway, "GET", f"/{bucket}/k", name=None).status == 403
    acl = {"x-amz-acl": "public-read"}
    assert send(gateway, "PUT", f"/{bucket}/k?acl", headers=acl, name=None).status == 403
    assert send(gateway, "PUT", f"/{bucket}/open", b"x", headers=acl, name=None).status == 200
    assert send(gateway, "GET", f"/{bucket}/open", name=None).body == b"x"
    assert send(gateway, "GET", "/", name=None).status == 200
    assert send(gateway, "PUT", "/a-bucket-of-nobody", name=None).code == "AccessDenied"


def test_who_writes_by_an_acl_writes_with_tags(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """Unless a policy denies it; the tags of what is there he may not change."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    bob.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="a=b")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert refusal(bob.put_object_tagging, Bucket=bucket, Key="k", Tagging={"TagSet": []}).code == "AccessDenied"
    policy = (
        '{"Statement": {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObjectTagging",'
        f' "Resource": "arn:aws:s3:::{bucket}/*"}}}}'
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    assert refusal(bob.put_object, Bucket=bucket, Key="k", Body=b"x", Tagging="a=b").code == "AccessDenied"


def test_bucket_owner_preferred(s3: Any, bob: Any, bucket: str) -> None:
    """What is given to the bucket's owner becomes his, of a PUT, a copy and an upload."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    own(s3, bucket, "BucketOwnerPreferred")
    given = {"ACL": "bucket-owner-full-control"}
    bob.put_object(Bucket=bucket, Key="his", Body=b"x")
    bob.put_object(Bucket=bucket, Key="put", Body=b"x", **given)
    bob.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "his"}, **given)
    upload = bob.create_multipart_upload(Bucket=bucket, Key="parts", **given)["UploadId"]
    parts = {"Bucket": bucket, "Key": "parts", "UploadId": upload}
    etag = bob.upload_part(**parts, PartNumber=1, Body=b"x")["ETag"]
    shown = bob.list_parts(**parts)
    assert (shown["Initiator"]["DisplayName"], shown["Owner"]["DisplayName"]) == ("Bob", "Alice")
    assert s3.list_multipart_uploads(Bucket=bucket)["Uploads"][0]["Owner"]["DisplayName"] == "Alice"
    bob.complete_multipart_upload(**parts, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    owners = {one["Key"]: one["Owner"]["DisplayName"] for one in s3.list_objects(Bucket=bucket)["Contents"]}
    assert owners == {"his": "Bob", "put": "Alice", "copy": "Alice", "parts": "Alice"}
    assert grants(s3.get_object_acl(Bucket=bucket, Key="put")) == [("Alice", "FULL_CONTROL")]


def test_bucket_owner_enforced(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """ACLs count for nothing and cannot be set; everything is the bucket owner's."""
    s3.put_object(Bucket=bucket, Key="open", Body=b"x", ACL="public-read")
    s3.put_bucket_acl(Bucket=bucket, GrantWrite=f"id={BOB.canonical_id}")
    bob.put_object(Bucket=bucket, Key="his", Body=b"x")
    enforced = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    refused = refusal(s3.put_bucket_ownership_controls, Bucket=bucket, OwnershipControls=enforced)
    assert (refused.code, refused.status) == ("InvalidBucketAclWithObjectOwnership", 400)
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=enforced)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == enforced
    assert send(gateway, "GET", f"/{bucket}/open", name=None).status == 403
    assert refusal(bob.get_object, Bucket=bucket, Key="his").status == 403
    assert s3.get_object(Bucket=bucket, Key="his")["Body"].read() == b"x"
    assert s3.get_object_acl(Bucket=bucket, Key="his")["Owner"]["DisplayName"] == "Alice"
    for acl in ("public-read", "private"):
        assert refusal(s3.put_object, Bucket=bucket, Key="n", Body=b"", ACL=acl).code == "AccessControlListNotSupported"
        assert refusal(s3.put_bucket_acl, Bucket=bucket, ACL=acl).code == "AccessControlListNotSupported"
        assert refusal(s3.put_object_acl, Bucket=bucket, Key="open", ACL=acl).code == "AccessControlListNotSupported"
    s3.put_object(Bucket=bucket, Key="n", Body=b"", ACL="bucket-owner-full-control")
    for _ in range(2):
        s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert send(gateway, "GET", f"/{bucket}/open", name=None).body == b"x"


def test_blocks_of_public_lists(gateway: Gateway, s3: Any, bob: Any, bucket: str) -> None:
    """Ignored, or refused; grants to a user stay."""
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    block(s3, bucket, IgnorePublicAcls=True)
    assert send(gateway, "GET", f"/{bucket}/k", name=None).status == 403
    assert refusal(bob.list_objects_v2, Bucket=bucket).code == "AccessDenied"
    assert not s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    s3.put_object_acl(Bucket=bucket, Key="k", GrantRead=f'uri={ALL_USERS},id="{BOB.canonical_id}"')
    assert bob.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    block(s3, bucket, BlockPublicAcls=True)
    assert send(gateway, "GET", f"/{bucket}/k", name=None).body == b"x"
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    for acl in ("public-read", "public-read-write", "authenticated-read"):
        assert refusal(s3.put_object, Bucket=bucket, Key="n", Body=b"", ACL=acl).code == "AccessDenied"
        assert refusal(s3.put_bucket_acl, Bucket=bucket, ACL=acl).code == "AccessDenied"
        assert refusal(s3.put_object_acl, Bucket=bucket, Key="k", ACL=acl).code == "AccessDenied"
    s3.put_object(Bucket=bucket, Key="n", Body=b"", ACL="private")


def test_blocks_of_public_policies(gateway: Gateway, s3: Any, bucket: str) -> None:
    """A new one is refused; one that is there lets nobody in any more but the owner."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",'
        f' "Resource": "arn:aws:s3:::{bucket}/*"}}]}}'
    )
    s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    block(s3, bucket, BlockPublicPolicy=True)
    assert refusal(s3.put_bucket_policy, Bucket=bucket, Policy=policy).code == "AccessDenied"
    assert send(gateway, "GET", f"/{bucket}/k", name=None).body == b"x"
    block(s3, bucket, RestrictPublicBuckets=True)
    assert send(gateway, "GET", f"/{bucket}/k", name=None).status == 403
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    for _ in range(2):
        s3.delete_public_access_block(Bucket=bucket)
    assert send(gateway, "GET", f"/{bucket}/k", name=None).body == b"x"


def test_a_block_is_read_back(s3: Any, bucket: str) -> None:
    """All four switches; a document that is not one is refused."""
    block(s3, bucket, BlockPublicAcls=True)
    answer = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert answer == OPEN | {"BlockPublicAcls": True}


def test_an_object_that_is_replaced_between_looking_and_reading(
    gateway: Gateway, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was allowed for one version is asked again for another: the private one is not given away."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"public", ACL="public-read")
    objects = gateway.services.objects
    look = objects.head

    async def look_and_be_late(*arguments: Any) -> Any:
        reading = await look(*arguments)
        await asyncio.to_thread(s3.put_object, Bucket=bucket, Key="k", Body=b"secret")
        return reading

    monkeypatch.setattr(objects, "head", look_and_be_late)
    answer = send(gateway, "GET", f"/{bucket}/k", name=None)
    assert (answer.status, answer.code) == (403, "AccessDenied")
