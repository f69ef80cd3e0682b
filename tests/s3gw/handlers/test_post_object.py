"""Uploads from browsers' forms, over the real doors: who may send one, what it makes, how it is answered."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.body import TAIL_BYTES_MAX
from s3gw.call import Settings
from tests.s3gw.forms import BOUNDARY, CONTENT_TYPE, Fields, encode_form, make_policy, sign_v2, sign_v4
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import Answer, send

ANY = [["starts-with", "$key", ""], ["starts-with", "$acl", ""]]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Real doors only: a form's file is stored as no other body is."""
    with running_gateway(Settings(domains=("s3.example",))) as running:
        yield running


def post(
    gateway: Gateway, bucket: str, fields: Fields, file: bytes | None = b"bar", headers: Any = None, **form: Any
) -> Answer:
    """Send a form."""
    headers = {"Content-Type": CONTENT_TYPE} | (headers or {})
    return send(gateway, "POST", f"/{bucket}", encode_form(fields, file, **form), headers, name=None)


def signed(bucket: str, *conditions: Any, **fields: str) -> dict[str, str]:
    """A SigV4 form of Alice's for key `k`."""
    return {"key": "k", **fields} | sign_v4([{"bucket": bucket}, ["starts-with", "$key", ""], *conditions])


def body_of(s3: Any, bucket: str, key: str = "k") -> bytes:
    """What is stored."""
    return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())


def test_a_form_as_boto3_makes_it(gateway: Gateway, s3: Any, bucket: str) -> None:
    """generate_presigned_post, with fields and conditions of all kinds."""
    made = s3.generate_presigned_post(
        bucket,
        "up/${filename}",
        Fields={"Content-Type": "text/x", "x-amz-meta-color": "blue", "success_action_status": "201"},
        Conditions=[
            ["starts-with", "$Content-Type", "text/"],
            {"x-amz-meta-color": "blue"},
            {"success_action_status": "201"},
            ["content-length-range", 1, 100],
        ],
    )
    answer = post(gateway, bucket, made["fields"], b"hello", filename="dir/a b.txt")
    assert answer.status == 201, answer.body
    assert b"<Key>up/a b.txt</Key>" in answer.body
    got = s3.get_object(Bucket=bucket, Key="up/a b.txt")
    assert (got["Body"].read(), got["ContentType"], got["Metadata"]) == (b"hello", "text/x", {"color": "blue"})
    assert got["ETag"] == answer.headers["etag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    assert answer.headers["location"] == f"{gateway.url}/{bucket}/up/a%20b.txt"


def test_a_form_of_sigv2(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Accepted here and nowhere else."""
    fields = {"key": "k"} | sign_v2(make_policy([{"bucket": bucket}, {"key": "k"}]))
    answer = post(gateway, bucket, fields)
    assert (answer.status, answer.body) == (204, b"")
    assert body_of(s3, bucket) == b"bar"
    refused = send(gateway, "GET", f"/{bucket}/k", headers={"Authorization": "AWS alice:c2lnbmF0dXJl"}, name=None)
    assert (refused.status, refused.code) == (400, "InvalidRequest")
    assert b"Please use AWS4-HMAC-SHA256" in refused.body


SIZES = [0, 1, 16_384, 16_385, TAIL_BYTES_MAX - 50, TAIL_BYTES_MAX, TAIL_BYTES_MAX + 1, 300_000, 3_000_000]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("after", [{}, {"submit": "Upload", "x" * 100: "y" * 20_000}], ids=["last", "followed"])
def test_files_of_all_sizes(gateway: Gateway, s3: Any, bucket: str, size: int, after: dict[str, str]) -> None:
    """Byte for byte, whatever follows the file."""
    file = os.urandom(size)
    answer = post(gateway, bucket, signed(bucket), file, after=after)
    assert answer.status == 204, answer.body
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert (got["Body"].read() == file, got["ETag"]) == (True, f'"{hashlib.md5(file).hexdigest()}"')
    assert got["ChecksumCRC64NVME"] == answer.headers["x-amz-checksum-crc64nvme"]
    if size > 10:
        part = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={size - 10}-")
        assert part["Body"].read() == file[-10:]


def test_more_behind_the_file_than_any_browser_sends(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Refused, and nothing is stored."""
    answer = post(gateway, bucket, signed(bucket), b"x" * 1000, after={"junk": "y" * 3_000_000})
    assert (answer.status, answer.code) == (400, "MalformedPOSTRequest")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=60) | st.just(b"\r\n--") | st.just(f"\r\n--{BOUNDARY}"[:-1].encode()), max_size=8),
    st.sampled_from([b"", b"\r\n", b"\r\nan epilogue"]),
)
def test_any_bytes_are_a_file(gateway: Gateway, s3: Any, bucket: str, pieces: list[bytes], end: bytes) -> None:
    """Beginnings of delimiters among them, and anything behind the form."""
    file = b"".join(pieces)
    assert post(gateway, bucket, signed(bucket), file, end=end).status == 204
    assert body_of(s3, bucket) == file


@pytest.mark.parametrize(
    ("form", "status", "code", "words"),
    [
        ({"policy": "bm90IGpzb24="}, 403, "SignatureDoesNotMatch", ""),
        ({"x-amz-meta-a": "b"}, 403, "AccessDenied", "Extra input fields: x-amz-meta-a"),
        ({"x-amz-credential": "nobody/20200101/us-east-1/s3/aws4_request", "x-amz-date": "20200101T000000Z"}, 403,
         "InvalidAccessKeyId", ""),
        ({"x-amz-signature": ""}, 400, "InvalidArgument", "X-Amz-Signature"),
        ({"key": ""}, 400, "InvalidArgument", ""),
        ({"key": "x" * 1025}, 400, "KeyTooLongError", ""),
        ({"x-amz-checksum-sha256": "no"}, 400, "BadDigest", ""),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, 400, "BadDigest", ""),
    ],
)  # fmt: skip
def test_refusals(
    gateway: Gateway, s3: Any, bucket: str, form: dict[str, str], status: int, code: str, words: str
) -> None:
    """Each with AWS's code, and nothing is stored."""
    answer = post(gateway, bucket, signed(bucket) | form)
    assert (answer.status, answer.code) == (status, code), answer.body
    assert words.encode() in answer.body
    assert f"<RequestId>{answer.headers['x-amz-request-id']}</RequestId>".encode() in answer.body
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_the_policy_is_kept_to(gateway: Gateway, s3: Any, bucket: str) -> None:
    """The condition that failed, an expired policy, another bucket's, one that is none."""
    for fields, code, words in [
        (signed(bucket, key="other") | sign_v4([{"bucket": bucket}, {"key": "k"}]), "AccessDenied",
         "Invalid according to Policy: Policy Condition failed: [&quot;eq&quot;, &quot;$key&quot;, &quot;k&quot;]"),
        ({"key": "k"} | sign_v4([{"bucket": bucket}, {"key": "k"}], expires_in_s=-5), "AccessDenied", "Policy expired"),
        (signed("another"), "AccessDenied", "$bucket"),
        ({"key": "k"} | sign_v2("bm90IGpzb24="), "InvalidPolicyDocument", "Invalid JSON"),
    ]:  # fmt: skip
        answer = post(gateway, bucket, fields)
        assert (answer.code, words.encode() in answer.body) == (code, True), answer.body
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("size", [4, 11, 100_000, 1_000_000])
def test_the_length_is_kept_to(gateway: Gateway, s3: Any, bucket: str, size: int) -> None:
    """Before the file is read where that can be told, at its end where not."""
    answer = post(gateway, bucket, signed(bucket, ["content-length-range", 5, 10]), b"x" * size)
    assert (answer.status, answer.code) == (400, "EntityTooSmall" if size < 5 else "EntityTooLarge")
    assert b"<ProposedSize>" in answer.body
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_anonymous_forms_need_a_grant(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Nobody may write to a bucket that grants nobody anything."""
    answer = post(gateway, bucket, {"key": "k"})
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.parametrize("by", ["acl", "policy"])
def test_anonymous_forms_with_a_grant(gateway: Gateway, s3: Any, bucket: str, by: str) -> None:
    """By the bucket's ACL or by its policy; a policy's condition holds for what the form says."""
    if by == "acl":
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    else:
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{bucket}/k*",
            "Condition": {"StringEquals": {"s3:x-amz-storage-class": "STANDARD_IA"}},
        }
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
        assert post(gateway, bucket, {"key": "k"}).code == "AccessDenied"
        assert post(gateway, bucket, {"key": "other", "x-amz-storage-class": "STANDARD_IA"}).code == "AccessDenied"
    answer = post(gateway, bucket, {"key": "k", "x-amz-storage-class": "STANDARD_IA"})
    assert answer.status == 204, answer.body
    listed = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert [(one["Key"], one["StorageClass"]) for one in listed] == [("k", "STANDARD_IA")]


def test_another_users_signature_is_not_enough(gateway: Gateway, bucket: str) -> None:
    """Bob may sign what he likes; the bucket is Alice's."""
    fields = {"key": "k"} | sign_v4([{"bucket": bucket}, {"key": "k"}], name="bob")
    assert post(gateway, bucket, fields).code == "AccessDenied"


def test_a_redirect(gateway: Gateway, bucket: str) -> None:
    """303 to where the form says, with what was made."""
    target = "https://app.example/done?x=1"
    fields = signed(bucket, {"success_action_redirect": target}, success_action_redirect=target)
    answer = post(gateway, bucket, fields)
    etag = hashlib.md5(b"bar").hexdigest()
    assert answer.status == 303
    assert answer.headers["location"] == f"{target}&bucket={bucket}&key=k&etag=%22{etag}%22"


def test_checksums_and_tags(gateway: Gateway, s3: Any, bucket: str) -> None:
    """What the form's fields say of the file is verified and kept."""
    digest = base64.b64encode(hashlib.sha256(b"bar").digest()).decode()
    md5 = base64.b64encode(hashlib.md5(b"bar").digest()).decode()
    tagging = "<Tagging><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag></TagSet></Tagging>"
    fields = signed(
        bucket, {"tagging": tagging}, {"content-md5": md5}, tagging=tagging, **{"x-amz-checksum-sha256": digest}
    )
    answer = post(gateway, bucket, fields | {"Content-MD5": md5})
    assert answer.status == 204, answer.body
    assert answer.headers["x-amz-checksum-sha256"] == digest
    assert s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")["ChecksumSHA256"] == digest
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b c"}]
    wrong = base64.b64encode(hashlib.md5(b"baz").digest()).decode()
    answer = post(gateway, bucket, signed(bucket, {"content-md5": wrong}) | {"Content-MD5": wrong})
    assert (answer.status, answer.code) == (400, "BadDigest")


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("text/plain", b"x", 412, "PreconditionFailed"),
        ("multipart/form-data", b"x", 400, "MalformedPOSTRequest"),
        (CONTENT_TYPE, b"garbage", 400, "MalformedPOSTRequest"),
        (CONTENT_TYPE, b"", 400, "MalformedPOSTRequest"),
        (CONTENT_TYPE, encode_form({"key": "k"}, None), 400, "InvalidArgument"),
        (CONTENT_TYPE, encode_form({"key": "k" * 30_000}, b""), 400, "MaxPostPreDataLengthExceeded"),
        (CONTENT_TYPE, encode_form({"x": "y"}, b""), 400, "InvalidArgument"),
    ],
)
def test_what_is_no_form(gateway: Gateway, bucket: str, content_type: str, body: bytes, status: int, code: str) -> None:
    """Refused before anything is asked of the store."""
    answer = send(gateway, "POST", f"/{bucket}", body, {"Content-Type": content_type}, name=None)
    assert (answer.status, answer.code) == (status, code)


def test_a_bucket_that_is_not_there(gateway: Gateway) -> None:
    """404 whatever the form."""
    assert post(gateway, "absent-bucket", {"key": "k"}).code == "NoSuchBucket"


def test_a_bucket_by_its_host_name(gateway: Gateway, s3: Any, bucket: str) -> None:
    """The virtual-host style that browsers' forms mostly use."""
    headers = {"Content-Type": CONTENT_TYPE, "Host": f"{bucket}.s3.example"}
    answer = send(gateway, "POST", "/", encode_form(signed(bucket), b"bar"), headers, name=None)
    assert answer.status == 204, answer.body
    assert body_of(s3, bucket) == b"bar"


def test_a_client_that_goes_away_leaves_nothing(gateway: Gateway, s3: Any, bucket: str) -> None:
    """Half a form is no object."""
    form = encode_form(signed(bucket), os.urandom(2_000_000))
    head = f"POST /{bucket} HTTP/1.1\r\nHost: h\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {len(form)}\r\n\r\n"
    with socket.create_connection((gateway.host, gateway.port), timeout=60) as connection:
        connection.sendall(head.encode() + form[: len(form) // 2])
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert re.fullmatch(r"2..", str(post(gateway, bucket, signed(bucket)).status))
