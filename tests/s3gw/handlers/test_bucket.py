"""Buckets: made, found, listed, removed, as boto3 and raw sockets see it."""

from __future__ import annotations

from typing import Any

import pytest

from s3gw.call import Settings
from tests.s3gw.gateway import ALICE, Gateway, running_gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal


def test_create_head_list_delete(s3: Any, bucket: str) -> None:
    """A life."""
    head = s3.head_bucket(Bucket=bucket)
    assert head["BucketRegion"] == "us-east-1"
    listed = s3.list_buckets()
    assert bucket in [found["Name"] for found in listed["Buckets"]]
    assert listed["Owner"]["ID"] == ALICE.canonical_id
    assert s3.delete_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    gone = refusal(s3.head_bucket, Bucket=bucket)
    assert gone.status == 404 and gone.headers["x-amz-bucket-region"] == "us-east-1"


def test_created_again(gateway: Gateway, s3: Any, bucket: str) -> None:
    """200 for the owner in us-east-1, BucketAlreadyExists for others."""
    assert s3.create_bucket(Bucket=bucket)["Location"] == f"/{bucket}"
    other = refusal(gateway.client("bob").create_bucket, Bucket=bucket)
    assert (other.code, other.status) == ("BucketAlreadyExists", 409)


def test_in_another_region() -> None:
    """The location is checked, told, and a second create is a conflict."""
    with running_gateway(Settings(region="eu-central-1")) as gateway:
        s3 = gateway.client()
        here = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket="there", CreateBucketConfiguration=here)
        assert s3.get_bucket_location(Bucket="there")["LocationConstraint"] == "eu-central-1"
        again = refusal(s3.create_bucket, Bucket="there", CreateBucketConfiguration=here)
        assert (again.code, again.status) == ("BucketAlreadyOwnedByYou", 409)
        wrong = refusal(s3.create_bucket, Bucket="x-y-z", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        assert (wrong.code, wrong.status) == ("IllegalLocationConstraintException", 400)
        assert s3.head_bucket(Bucket="there")["BucketRegion"] == "eu-central-1"


def test_location_of_us_east_1_is_empty(s3: Any, bucket: str) -> None:
    """As it has been since 2006."""
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


@pytest.mark.parametrize("name", ["ab", "A-B-C", "a_b", "-abc", "192.168.0.1", "a..b"])
def test_bad_names(gateway: Gateway, name: str) -> None:
    """InvalidBucketName, and never anything under /-/."""
    answer = send(gateway, "PUT", f"/{name}")
    assert (answer.status, answer.code) == (400, "InvalidBucketName")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"<CreateBucketConfiguration>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (
            b"<CreateBucketConfiguration><Bucket><Type>Directory</Type></Bucket></CreateBucketConfiguration>",
            "NotImplemented",
        ),
        (b"<CreateBucketConfiguration><Tags><Tag/></Tags></CreateBucketConfiguration>", "NotImplemented"),
        (
            b"<CreateBucketConfiguration><LocationConstraint>mars</LocationConstraint></CreateBucketConfiguration>",
            "IllegalLocationConstraintException",
        ),
    ],
)
def test_bad_configurations(gateway: Gateway, body: bytes, code: str) -> None:
    """Nothing is made of what is not understood."""
    assert send(gateway, "PUT", "/never-made", body).code == code
    assert send(gateway, "HEAD", "/never-made").status == 404


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-acl": "public"}, "InvalidArgument"),
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=x"}, "InvalidRequest"),
        ({"x-amz-grant-read": "id=nobody"}, "InvalidArgument"),
        (
            {"x-amz-acl": "public-read", "x-amz-object-ownership": "BucketOwnerEnforced"},
            "InvalidBucketAclWithObjectOwnership",
        ),
        ({"x-amz-object-ownership": "Nobody"}, "InvalidArgument"),
    ],
)
def test_bad_headers_of_create(gateway: Gateway, headers: dict[str, str], code: str) -> None:
    """A bucket without what was asked for would be another bucket."""
    assert send(gateway, "PUT", "/never-made", headers=headers).code == code


def test_only_an_empty_bucket_is_deleted(s3: Any, bucket: str) -> None:
    """Objects block it, open uploads do not."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert refusal(s3.delete_bucket, Bucket=bucket).code == "BucketNotEmpty"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.create_multipart_upload(Bucket=bucket, Key="open")
    s3.delete_bucket(Bucket=bucket)


def test_others_are_denied(gateway: Gateway, bucket: str) -> None:
    """Head, list, delete; root is not denied."""
    bob = gateway.client("bob")
    denied = refusal(bob.head_bucket, Bucket=bucket)
    assert denied.status == 403 and denied.headers["x-amz-bucket-region"] == "us-east-1"
    assert refusal(bob.list_objects_v2, Bucket=bucket).code == "AccessDenied"
    assert refusal(bob.delete_bucket, Bucket=bucket).code == "AccessDenied"
    gateway.client("root").head_bucket(Bucket=bucket)
    assert bucket not in [found["Name"] for found in bob.list_buckets().get("Buckets", [])]


def test_an_expected_owner(s3: Any, bucket: str) -> None:
    """Another one is denied, the right one served."""
    s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=ALICE.canonical_id)
    assert refusal(s3.head_bucket, Bucket=bucket, ExpectedBucketOwner="111111111111").status == 403


def test_listing_buckets_pages() -> None:
    """Every bucket once, whatever the page."""
    with running_gateway() as gateway:
        s3 = gateway.client()
        names = [f"page-{number}" for number in range(7)]
        for name in names:
            s3.create_bucket(Bucket=name)
        found: list[str] = []
        token: dict[str, str] = {}
        while True:
            page = s3.list_buckets(MaxBuckets=3, **token)
            found += [one["Name"] for one in page["Buckets"]]
            if "ContinuationToken" not in page:
                break
            token = {"ContinuationToken": page["ContinuationToken"]}
        assert found == names
        assert [one["Name"] for one in s3.list_buckets(Prefix="page-6")["Buckets"]] == ["page-6"]
        assert not s3.list_buckets(BucketRegion="mars").get("Buckets")
        assert refusal(s3.list_buckets, ContinuationToken="forged").code == "InvalidArgument"
        for limit in ("0", "10001", "-1", "x"):
            assert send(gateway, "GET", f"/?max-buckets={limit}").code == "InvalidArgument"
        assert len(s3.list_buckets(MaxBuckets=10_000)["Buckets"]) == len(names)
