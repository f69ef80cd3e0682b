"""boto3: policies, ACLs, ownership and public access blocks, read back by what a client without credentials may do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore import UNSIGNED
from botocore.exceptions import ClientError

from tests.clients.endpoint import Endpoint

ENFORCED = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
OPEN = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)


@pytest.fixture(scope="session")
def anybody(endpoint: Endpoint) -> Any:
    """A client that does not sign."""
    return endpoint.boto3_client(signature_version=UNSIGNED)


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    """The code of a refusal, `` for an answer."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def policy_of(bucket: str, action: str, **more: Any) -> str:
    """One statement for everybody."""
    statement = {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{bucket}/*"} | more
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.s3_operation("PutBucketPolicy", "GetBucketPolicy", "DeleteBucketPolicy", "GetBucketPolicyStatus")
def test_a_policy_opens_and_closes(s3: Any, anybody: Any, bucket: str) -> None:
    """What it says holds for the next request, and no longer than it is there."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    text = policy_of(bucket, "s3:GetObject")
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"]
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert code_of(anybody.put_object, Bucket=bucket, Key="k", Body=b"y") == "AccessDenied"
    assert code_of(anybody.list_objects_v2, Bucket=bucket) == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code_of(s3.get_bucket_policy, Bucket=bucket) == "NoSuchBucketPolicy"


def test_a_condition_on_the_transport(s3: Any, anybody: Any, bucket: str, endpoint: Endpoint) -> None:
    """aws:SecureTransport is true over https and false over http."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    secure = {"Condition": {"Bool": {"aws:SecureTransport": "true"}}}
    s3.put_bucket_policy(Bucket=bucket, Policy=policy_of(bucket, "s3:GetObject", **secure))
    refused = code_of(anybody.get_object, Bucket=bucket, Key="k")
    assert refused == ("" if endpoint.scheme == "https" else "AccessDenied")


@pytest.mark.s3_operation("PutBucketAcl", "GetBucketAcl")
def test_the_acl_of_a_bucket(s3: Any, anybody: Any, bucket: str) -> None:
    """public-read lets anybody list, and nothing else; private ends it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert [grant["Permission"] for grant in s3.get_bucket_acl(Bucket=bucket)["Grants"]] == ["READ", "FULL_CONTROL"]
    assert anybody.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code_of(anybody.put_object, Bucket=bucket, Key="n", Body=b"") == "AccessDenied"
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    assert code_of(anybody.list_objects_v2, Bucket=bucket) == "AccessDenied"


@pytest.mark.s3_operation("PutObjectAcl", "GetObjectAcl")
def test_the_acl_of_an_object(s3: Any, anybody: Any, bucket: str) -> None:
    """Given with the object, taken away later."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert len(s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]) == 1
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"


@pytest.mark.s3_operation("PutBucketOwnershipControls", "GetBucketOwnershipControls", "DeleteBucketOwnershipControls")
def test_ownership(s3: Any, anybody: Any, bucket: str) -> None:
    """Where the bucket's owner is enforced, ACLs count for nothing until it is lifted."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=ENFORCED)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == ENFORCED
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    refused = code_of(s3.put_object, Bucket=bucket, Key="k", Body=b"", ACL="public-read")
    assert refused == "AccessControlListNotSupported"
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"


@pytest.mark.s3_operation("PutPublicAccessBlock", "GetPublicAccessBlock", "DeletePublicAccessBlock")
def test_public_access_is_blocked(s3: Any, anybody: Any, bucket: str) -> None:
    """What is public is closed, and nothing new becomes public; then everything is as before."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy_of(bucket, "s3:PutObject"))
    everything = dict.fromkeys(OPEN, True)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=everything)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == everything
    assert code_of(anybody.get_object, Bucket=bucket, Key="k") == "AccessDenied"
    assert code_of(anybody.put_object, Bucket=bucket, Key="n", Body=b"") == "AccessDenied"
    assert code_of(s3.put_bucket_acl, Bucket=bucket, ACL="public-read") == "AccessDenied"
    assert code_of(s3.put_bucket_policy, Bucket=bucket, Policy=policy_of(bucket, "s3:GetObject")) == "AccessDenied"
    s3.delete_public_access_block(Bucket=bucket)
    assert anybody.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    anybody.put_object(Bucket=bucket, Key="n", Body=b"")
