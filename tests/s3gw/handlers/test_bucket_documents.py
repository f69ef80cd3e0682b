"""Small documents of a bucket through the socket: tags, who pays, acceleration, and what cannot be configured."""

from __future__ import annotations

from typing import Any

import pytest

from tests.s3gw.gateway import Gateway
from tests.s3gw.raw import send
from tests.s3gw.refusal import refusal


def tagging(*pairs: tuple[str, str]) -> dict[str, Any]:
    """As boto3 wants it."""
    return {"TagSet": [{"Key": name, "Value": text} for name, text in pairs]}


def test_bucket_tags(s3: Any, bucket: str) -> None:
    """Put, given back by name, replaced as a whole, removed."""
    answer = s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(("b", "2"), ("a", "")))
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "2"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(("c", "3")))
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "c", "Value": "3"}]
    for _ in range(2):
        assert s3.delete_bucket_tagging(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
        assert refusal(s3.get_bucket_tagging, Bucket=bucket).code == "NoSuchTagSet"
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(("c", "3")))
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging())
    assert refusal(s3.get_bucket_tagging, Bucket=bucket).code == "NoSuchTagSet"


def test_fifty_bucket_tags(s3: Any, bucket: str) -> None:
    """And not one more."""
    many = [(f"n{number:02}", "x") for number in range(51)]
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(*many[:50]))
    assert refusal(s3.put_bucket_tagging, Bucket=bucket, Tagging=tagging(*many)).code == "BadRequest"
    assert len(s3.get_bucket_tagging(Bucket=bucket)["TagSet"]) == 50


def test_request_payment(s3: Any, bucket: str) -> None:
    """Given back as it was put; the owner's without one."""
    for payer in ("Requester", "BucketOwner", "Requester"):
        s3.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": payer})
        assert s3.get_bucket_request_payment(Bucket=bucket)["Payer"] == payer
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    wrong = {"Payer": "Nobody"}
    assert (
        refusal(s3.put_bucket_request_payment, Bucket=bucket, RequestPaymentConfiguration=wrong).code == "MalformedXML"
    )


def test_acceleration(s3: Any, bucket: str) -> None:
    """Given back as it was put; refused for a name with dots, as on AWS."""
    for state in ("Enabled", "Suspended"):
        s3.put_bucket_accelerate_configuration(Bucket=bucket, AccelerateConfiguration={"Status": state})
        assert s3.get_bucket_accelerate_configuration(Bucket=bucket)["Status"] == state
    wrong = {"Status": "On"}
    put = s3.put_bucket_accelerate_configuration
    assert refusal(put, Bucket=bucket, AccelerateConfiguration=wrong).code == "MalformedXML"
    s3.create_bucket(Bucket=f"{bucket}.dots")
    refused = refusal(put, Bucket=f"{bucket}.dots", AccelerateConfiguration={"Status": "Enabled"})
    assert refused.code == "InvalidRequest"


@pytest.mark.parametrize("name", ["tagging", "requestPayment", "accelerate", "cors"])
def test_a_body_that_is_no_document(gateway: Gateway, bucket: str, name: str) -> None:
    """MalformedXML, and what was there stays."""
    before = send(gateway, "GET", f"/{bucket}?{name}")
    for body in (b"", b"<", b"<Other/>", b"<!DOCTYPE a><Tagging/>"):
        assert send(gateway, "PUT", f"/{bucket}?{name}", body).code == "MalformedXML"
    after = send(gateway, "GET", f"/{bucket}?{name}")
    assert (after.status, after.code) == (before.status, before.code)


@pytest.mark.parametrize(
    "name",
    ["website", "replication", "analytics&id=x", "inventory&id=x", "metrics&id=x", "intelligent-tiering&id=x"],
)
def test_what_cannot_be_configured(gateway: Gateway, bucket: str, name: str) -> None:
    """A PUT is not implemented, and there is nothing to delete."""
    assert send(gateway, "PUT", f"/{bucket}?{name}", b"<X/>").code == "NotImplemented"
    assert send(gateway, "DELETE", f"/{bucket}?{name}").status == 204


def test_only_the_owner(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Nobody else reads or writes a document."""
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tagging(("a", "1")))
    bob = gateway.client("bob")
    for call in (bob.get_bucket_tagging, bob.delete_bucket_tagging, bob.get_bucket_cors, bob.delete_bucket_cors):
        assert refusal(call, Bucket=bucket).code == "AccessDenied"
    assert refusal(bob.put_bucket_tagging, Bucket=bucket, Tagging=tagging()).code == "AccessDenied"
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
