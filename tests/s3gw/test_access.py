"""Asking for access in a whole gateway: what is fetched for it, what is logged, whence a request comes, new buckets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from s3gw.access import LOGGED_CHARACTERS_MAX
from s3gw.call import Settings
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal

PROXIES = ("127.0.0.1", "10.9.9.9")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Behind proxies, with AWS's present default for new buckets."""
    with running_gateway(Settings(trusted_proxies=PROXIES, bucket_defaults="aws")) as running:
        yield running


def open_bucket(s3: Any, bucket: str) -> None:
    """Take away what blocks public access."""
    s3.delete_public_access_block(Bucket=bucket)
    s3.delete_bucket_ownership_controls(Bucket=bucket)


def put_policy(s3: Any, bucket: str, **changes: Any) -> None:
    """One statement that lets everybody read."""
    plain = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [plain | changes]}))


def test_new_buckets_are_as_on_aws(s3: Any, bucket: str) -> None:
    """ACLs disabled and public access blocked, unless the creator chose another ownership."""
    controls = s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"]
    assert controls["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
    assert refusal(s3.put_bucket_acl, Bucket=bucket, ACL="public-read").code == "AccessControlListNotSupported"
    refused = refusal(s3.create_bucket, Bucket=f"{bucket}-b", ACL="public-read")
    assert refused.code == "InvalidBucketAclWithObjectOwnership"
    writer = {"ObjectOwnership": "ObjectWriter"}
    assert refusal(s3.create_bucket, Bucket=f"{bucket}-b", ACL="public-read", **writer).code == "AccessDenied"
    s3.create_bucket(Bucket=f"{bucket}-b", ACL="private", **writer)
    assert s3.get_bucket_ownership_controls(Bucket=f"{bucket}-b")["OwnershipControls"]["Rules"] == [writer]
    assert all(s3.get_public_access_block(Bucket=f"{bucket}-b")["PublicAccessBlockConfiguration"].values())


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (None, 403),
        ("192.0.2.7", 200),
        ("192.0.2.7, 10.9.9.9", 200),
        ("192.0.2.7, 198.51.100.1", 403),
        ("198.51.100.1, 192.0.2.7,10.9.9.9", 200),
        ("junk", 403),
        (",", 403),
        ("10.9.9.9", 403),
    ],
)
def test_the_address_behind_a_proxy(gateway: Gateway, s3: Any, bucket: str, forwarded: str | None, status: int) -> None:
    """The last one that no proxy of ours added: what stands before it is what the client claims."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    open_bucket(s3, bucket)
    put_policy(s3, bucket, Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert send(gateway, "GET", f"/{bucket}/k", headers=headers, name=None).status == status


def test_the_reason_is_logged(gateway: Gateway, s3: Any, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    """A denial at info, on one line of a bounded length, whatever is in the key; the rest only at debug."""
    caplog.set_level(logging.INFO, "s3gw.access")
    assert send(gateway, "GET", f"/{bucket}/a%0Ab{'c' * 900}", name="bob").status == 403
    line = next(record.getMessage() for record in caplog.records if record.name == "s3gw.access")
    assert line.startswith("not allowed: s3:GetObject for bob: nothing allows it: 'arn:aws:s3:::bucket-")
    assert "\n" not in line and len(line) == LOGGED_CHARACTERS_MAX
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    open_bucket(s3, bucket)
    put_policy(s3, bucket, Sid="Readers")
    caplog.clear()
    caplog.set_level(logging.DEBUG, "s3gw.access")
    assert send(gateway, "GET", f"/{bucket}/k", name=None).status == 200
    assert "allowed: s3:GetObject" in caplog.text and "statement 1 (Readers)" in caplog.text
    assert "for anonymous" in caplog.text


def test_the_owner_costs_no_look_at_the_object(
    gateway: Gateway, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does whom a policy allows; an ACL does, once."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    open_bucket(s3, bucket)
    objects = gateway.services.objects
    look, looks = objects.head, []

    async def count(*arguments: Any) -> Any:
        looks.append(arguments[1])
        return await look(*arguments)

    monkeypatch.setattr(objects, "head", count)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    put_policy(s3, bucket)
    assert send(gateway, "GET", f"/{bucket}/k", name=None).body == b"x"
    assert looks == []
    s3.delete_bucket_policy(Bucket=bucket)
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    looks.clear()
    assert send(gateway, "GET", f"/{bucket}/k", name=None).body == b"x"
    assert looks == [b"k"]
