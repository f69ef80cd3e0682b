"""SSE-S3, SSE-KMS and SSE-C through the socket: every mode on every way in and out, and every pair in copies."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster.directory import Directory
from cluster.objectstore import ObjectStore
from storage.model import Versioning
from tests.cluster.world import open_world
from tests.s3gw.forms import CONTENT_TYPE, encode_form
from tests.s3gw.gateway import Gateway, running_gateway
from tests.s3gw.raw import send, sign
from tests.s3gw.refusal import refusal

PART = 5 << 20
HEADER = "x-amz-server-side-encryption"


@asynccontextmanager
async def doors_with_keys() -> AsyncIterator[tuple[ObjectStore, Directory]]:
    """The real doors, and two named keys."""
    with TemporaryDirectory() as home:
        async with open_world(Path(home)) as world:
            world.keyring.create_named_key("payroll")
            world.keyring.create_named_key("other")
            yield world.cluster.objects, world.cluster.directory


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """Over doors that have named keys."""
    with running_gateway(doors=doors_with_keys) as running:
        yield running


def customer(fill: bytes, source: bool = False) -> dict[str, str]:
    """The arguments of a customer's key of one repeated byte; boto3 adds the MD5."""
    prefix = "CopySourceSSECustomer" if source else "SSECustomer"
    return {f"{prefix}Algorithm": "AES256", f"{prefix}Key": (fill * 32).decode()}


def customer_headers(fill: bytes, prefix: str = "x-amz-server-side-encryption-customer-") -> dict[str, str]:
    """The same as headers."""
    key = base64.b64encode(fill * 32).decode()
    md5 = base64.b64encode(hashlib.md5(fill * 32).digest()).decode()
    return {f"{prefix}algorithm": "AES256", f"{prefix}key": key, f"{prefix}key-md5": md5}


MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "s3": {"ServerSideEncryption": "AES256"},
    "kms": {"ServerSideEncryption": "aws:kms"},
    "kms-payroll": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "payroll"},
    "dsse-other": {"ServerSideEncryption": "aws:kms:dsse", "SSEKMSKeyId": "arn:aws:kms:us-east-1:1:key/other"},
    "a": customer(b"a"),
    "b": customer(b"b"),
}
CUSTOMERS = {"a": customer(b"a"), "b": customer(b"b")}
"""what a read needs"""


def check_mode(answer: dict[str, Any], mode: str) -> None:
    """An answer says the mode that was asked for, and nothing else."""
    asked = MODES[mode]
    if mode in CUSTOMERS:
        assert answer["SSECustomerAlgorithm"] == "AES256"
        md5 = hashlib.md5(asked["SSECustomerKey"].encode()).digest()
        assert answer["SSECustomerKeyMD5"] == base64.b64encode(md5).decode()
        assert "ServerSideEncryption" not in answer
        return
    assert answer["ServerSideEncryption"] == asked.get("ServerSideEncryption", "AES256")
    assert "SSECustomerAlgorithm" not in answer
    if "SSEKMSKeyId" in asked:
        assert answer["SSEKMSKeyId"] == asked["SSEKMSKeyId"]
    elif mode == "kms":
        assert answer["SSEKMSKeyId"].startswith("bk-")
    else:
        assert "SSEKMSKeyId" not in answer


@pytest.mark.parametrize("size", [0, 100, 300_000])
@pytest.mark.parametrize("mode", MODES)
def test_put_and_read(s3: Any, bucket: str, mode: str, size: int) -> None:
    """PUT, HEAD, GET and a range of it tell the mode and give the bytes; the ETag is the MD5 for SSE-S3 alone."""
    data = os.urandom(size)
    read = CUSTOMERS.get(mode, {})
    put = s3.put_object(Bucket=bucket, Key="k", Body=data, ChecksumAlgorithm="SHA256", **MODES[mode])
    check_mode(put, mode)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **read)
    check_mode(head, mode)
    got = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED", **read)
    check_mode(got, mode)
    assert got["Body"].read() == data
    assert head["ChecksumSHA256"] == got["ChecksumSHA256"] == put["ChecksumSHA256"]
    assert base64.b64decode(put["ChecksumSHA256"]) == hashlib.sha256(data).digest()
    assert (put["ETag"].strip('"') == hashlib.md5(data).hexdigest()) is (mode in ("plain", "s3"))
    assert put["ETag"] == head["ETag"] == got["ETag"]
    if size:
        part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=10-19", **read)
        assert part["Body"].read() == data[10:20]
        whole = s3.get_object(Bucket=bucket, Key="k", PartNumber=1, **read)
        assert whole["Body"].read() == data


@pytest.mark.parametrize("size", [50, 200_000])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(MODES, MODES)))
def test_copies_between_every_pair(s3: Any, bucket: str, source: str, target: str, size: int) -> None:
    """A copy is sealed as it asks, whatever its source is sealed with, and both are read with their own keys."""
    data = os.urandom(size)
    s3.put_object(Bucket=bucket, Key="from", Body=data, **MODES[source])
    opened = customer(source.encode(), source=True) if source in CUSTOMERS else {}
    where = {"Bucket": bucket, "Key": "from"}
    copied = s3.copy_object(Bucket=bucket, Key="to", CopySource=where, **MODES[target], **opened)
    check_mode(copied, target)
    got = s3.get_object(Bucket=bucket, Key="to", **CUSTOMERS.get(target, {}))
    check_mode(got, target)
    assert got["Body"].read() == data
    assert got["ETag"] == copied["CopyObjectResult"]["ETag"]
    assert s3.get_object(Bucket=bucket, Key="from", **CUSTOMERS.get(source, {}))["Body"].read() == data


@pytest.mark.parametrize("target", ["plain", "kms-payroll", "b"])
@pytest.mark.parametrize("source", ["plain", "kms-payroll", "a"])
def test_parts_of_every_pair(s3: Any, bucket: str, source: str, target: str) -> None:
    """An upload of an uploaded and a copied part: mode told at every step, read whole, in ranges and by part."""
    copied, sent = os.urandom(PART), os.urandom(1000)
    s3.put_object(Bucket=bucket, Key="from", Body=copied, **MODES[source])
    opened = customer(source.encode(), source=True) if source in CUSTOMERS else {}
    read = CUSTOMERS.get(target, {})
    created = s3.create_multipart_upload(Bucket=bucket, Key="to", **MODES[target])
    check_mode(created, target)
    upload = {"Bucket": bucket, "Key": "to", "UploadId": created["UploadId"]}
    one = s3.upload_part_copy(**upload, PartNumber=1, CopySource={"Bucket": bucket, "Key": "from"}, **read, **opened)
    check_mode(one, target)
    two = s3.upload_part(**upload, PartNumber=2, Body=sent, **read)
    check_mode(two, target)
    etags = [one["CopyPartResult"]["ETag"], two["ETag"]]
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    done = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **read)
    assert done["ETag"].endswith('-2"')
    if target not in CUSTOMERS:
        check_mode(done, target)
    again = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **read)
    assert (again["ETag"], again.get("ChecksumCRC64NVME")) == (done["ETag"], done["ChecksumCRC64NVME"])
    got = s3.get_object(Bucket=bucket, Key="to", ChecksumMode="ENABLED", **read)
    check_mode(got, target)
    assert got["ChecksumCRC64NVME"] == done["ChecksumCRC64NVME"]
    assert got["Body"].read() == copied + sent
    across = s3.get_object(Bucket=bucket, Key="to", Range=f"bytes={PART - 5}-{PART + 4}", **read)
    assert across["Body"].read() == copied[-5:] + sent[:5]
    assert s3.get_object(Bucket=bucket, Key="to", PartNumber=2, **read)["Body"].read() == sent


@pytest.mark.parametrize(
    ("stored", "brought", "message"),
    [
        ("a", {}, "The object was stored using a form of Server Side Encryption"),
        ("a", customer(b"b"), "did not match"),
        ("plain", customer(b"a"), "not applicable"),
        ("kms-payroll", customer(b"a"), "not applicable"),
    ],
)
def test_reads_with_a_key_that_does_not_fit(s3: Any, bucket: str, stored: str, brought: Any, message: str) -> None:
    """400 for GET, HEAD, copies and parts made of it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", **MODES[stored])
    refused = refusal(s3.get_object, Bucket=bucket, Key="k", **brought)
    assert refused[:2] == ("InvalidRequest", 400)
    assert message in refused.error["Message"]
    assert refusal(s3.head_object, Bucket=bucket, Key="k", **brought).status == 400
    of_source = {f"CopySource{name}": value for name, value in brought.items()}
    where = {"Bucket": bucket, "Key": "k"}
    with pytest.raises(ClientError, match=message):
        s3.copy_object(Bucket=bucket, Key="to", CopySource=where, **of_source)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="to")["UploadId"]
    with pytest.raises(ClientError, match=message):
        s3.upload_part_copy(Bucket=bucket, Key="to", UploadId=upload, PartNumber=1, CopySource=where, **of_source)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, Prefix="to")


def test_what_needs_no_key(s3: Any, bucket: str) -> None:
    """Listing, tags and deleting do not."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", Tagging="a=1", **customer(b"a"))
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Size"] == 6
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "1"}]
    s3.delete_object(Bucket=bucket, Key="k")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_a_marker_asks_for_no_key(gateway: Gateway, s3: Any, bucket: str) -> None:
    """A deleted object is not found, with a key and without."""
    gateway.set_versioning(bucket, Versioning.ENABLED)
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer(b"a"))["VersionId"]
    s3.delete_object(Bucket=bucket, Key="k")
    for brought in ({}, customer(b"a")):
        assert refusal(s3.get_object, Bucket=bucket, Key="k", **brought)[:2] == ("NoSuchKey", 404)
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=version, **customer(b"a"))["Body"].read() == b"x"


def test_parts_with_a_key_that_does_not_fit(s3: Any, bucket: str) -> None:
    """A part needs the very key that the upload was created with, and none where there was none."""
    with_key = s3.create_multipart_upload(Bucket=bucket, Key="k", **customer(b"a"))["UploadId"]
    without = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    for upload, brought in ((with_key, {}), (with_key, customer(b"b")), (without, customer(b"a"))):
        assert refusal(s3.upload_part, Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"x", **brought)[
            :2
        ] == ("InvalidRequest", 400)


def test_a_checksum_that_needs_the_key(s3: Any, bucket: str) -> None:
    """Parts show their checksums to who has the key; an upload with a checksum asked for is completed with it only."""
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", ChecksumAlgorithm="SHA256", **customer(b"a"))
    upload = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"secret", ChecksumAlgorithm="SHA256", **customer(b"a"))
    assert "ChecksumSHA256" not in s3.list_parts(**upload)["Parts"][0]
    key = base64.b64encode(b"a" * 32)  # boto3 encodes it for every operation but this
    md5 = base64.b64encode(hashlib.md5(b"a" * 32).digest()).decode()
    opened = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key.decode(), "SSECustomerKeyMD5": md5}
    shown = s3.list_parts(**upload, **opened)["Parts"][0]
    assert shown["ChecksumSHA256"] == part["ChecksumSHA256"]
    listed = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}]}
    assert refusal(s3.complete_multipart_upload, **upload, MultipartUpload=listed)[:2] == ("InvalidRequest", 400)
    other = refusal(s3.complete_multipart_upload, **upload, MultipartUpload=listed, **customer(b"b"))
    assert "did not match" in other.error["Message"]
    done = s3.complete_multipart_upload(**upload, MultipartUpload=listed, **customer(b"a"))
    assert done["ChecksumSHA256"].endswith("-1")


def test_an_upload_completed_without_the_key(s3: Any, bucket: str) -> None:
    """Where no checksum was asked for, the key is not needed, and a retry answers the same."""
    created = s3.create_multipart_upload(Bucket=bucket, Key="k", **customer(b"a"))
    upload = {"Bucket": bucket, "Key": "k", "UploadId": created["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=b"secret", **customer(b"a"))
    listed = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    done = s3.complete_multipart_upload(**upload, MultipartUpload=listed)
    assert s3.complete_multipart_upload(**upload, MultipartUpload=listed)["ETag"] == done["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k", **customer(b"a"))["Body"].read() == b"secret"


@pytest.mark.parametrize("name", ["nobody", "alias/nobody", "arn:aws:kms:us-east-1:1:key/nobody", "not/a/name"])
def test_an_unknown_key(gateway: Gateway, s3: Any, bucket: str, name: str) -> None:
    """Refused before the body is asked for, and nothing is stored."""
    headers = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": name}
    answer = send(gateway, "PUT", f"/{bucket}/k", b"x" * 100, headers)
    assert (answer.status, answer.code) == (400, "KMS.NotFoundException")
    assert refusal(
        s3.create_multipart_upload, Bucket=bucket, Key="k", ServerSideEncryption="aws:kms", SSEKMSKeyId=name
    )[:2] == ("KMS.NotFoundException", 400)
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("name", ["payroll", "alias/payroll", "arn:aws:kms:us-east-1:1:alias/payroll", "alias/aws/s3"])
def test_names_of_a_key(s3: Any, bucket: str, name: str) -> None:
    """However it is named, it is that key, and it is called what the client called it."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=name)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert (got["SSEKMSKeyId"], got["Body"].read()) == (name, b"x")


def test_context_and_bucket_key(s3: Any, bucket: str) -> None:
    """Both are told again; a context that is no JSON is refused."""
    context = base64.b64encode(b'{"a": "1"}').decode()
    asked = {"ServerSideEncryption": "aws:kms", "SSEKMSEncryptionContext": context, "BucketKeyEnabled": True}
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", **asked)
    assert (put["SSEKMSEncryptionContext"], put["BucketKeyEnabled"]) == (context, True)
    assert s3.head_object(Bucket=bucket, Key="k")["BucketKeyEnabled"] is True
    assert refusal(s3.put_object, Bucket=bucket, Key="k", Body=b"x", **(asked | {"SSEKMSEncryptionContext": "e30"}))[
        :2
    ] == ("InvalidArgument", 400)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reads_that_ask_for_an_encryption(gateway: Gateway, s3: Any, bucket: str, method: str) -> None:
    """400, as on AWS, whatever the object is sealed with."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    for headers in (
        {"x-amz-server-side-encryption": "AES256"},
        {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "payroll"},
    ):
        assert send(gateway, method, f"/{bucket}/k", headers=headers).status == 400


def test_no_answer_tells_a_key(gateway: Gateway, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither a refusal of any kind nor the log shows a customer's key, not even to who does not sign rightly."""
    caplog.set_level("DEBUG")
    good = customer_headers(b"k")
    key = good["x-amz-server-side-encryption-customer-key"]
    wrong_md5 = good | {"x-amz-server-side-encryption-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    beside = good | {"x-amz-server-side-encryption": "aws:kms"}
    answers = [send(gateway, "PUT", f"/{bucket}/k", b"x", headers) for headers in (wrong_md5, beside)]
    assert [answer.code for answer in answers] == ["InvalidArgument"] * 2
    answers.append(
        send(gateway, "PUT", f"/{bucket}/k", b"x", sign(gateway, "GET", f"/{bucket}/k", b"x", good), name=None)
    )
    answers.append(send(gateway, "PUT", f"/{bucket}/k", b"x", good, name="bob"))
    answers.append(send(gateway, "GET", f"/{bucket}/k", headers=good, name=None))
    assert [answer.code for answer in answers[2:4]] == ["SignatureDoesNotMatch", "AccessDenied"]
    assert answers[4].status == 403
    lines = [record.getMessage() for record in caplog.records if not record.name.startswith("botocore")]
    told = b"".join(answer.body for answer in answers) + "\n".join(lines).encode()
    for spelling in (key, key.encode().hex(" "), "k" * 32):
        assert spelling.encode() not in told


def test_the_default_of_a_bucket(s3: Any, bucket: str) -> None:
    """Applied to PUT, copies and uploads that say nothing, told with each object, and gone when it is deleted."""
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "payroll"}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": by_default, "BucketKeyEnabled": True}]}
    absent = "ServerSideEncryptionConfigurationNotFoundError"
    assert refusal(s3.get_bucket_encryption, Bucket=bucket).code == absent
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rules)
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"] == rules
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    copied = s3.copy_object(Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "before"})
    created = s3.create_multipart_upload(Bucket=bucket, Key="m")
    for answer in (put, copied, created, s3.head_object(Bucket=bucket, Key="c")):
        check_mode(answer, "kms-payroll")
        assert answer["BucketKeyEnabled"] is True
    check_mode(s3.head_object(Bucket=bucket, Key="before"), "plain")
    check_mode(s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="AES256"), "s3")
    check_mode(s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer(b"a")), "a")
    s3.delete_bucket_encryption(Bucket=bucket)
    assert refusal(s3.get_bucket_encryption, Bucket=bucket).code == absent
    check_mode(s3.put_object(Bucket=bucket, Key="k", Body=b"x"), "plain")
    check_mode(s3.get_object(Bucket=bucket, Key="c"), "kms-payroll")


def test_customers_keys_may_be_blocked(gateway: Gateway, s3: Any, bucket: str) -> None:
    """BlockedEncryptionTypes: new objects are refused, what there is stays readable."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **customer(b"a"))
    body = (
        b"<ServerSideEncryptionConfiguration><Rule><BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType>"
        b"</BlockedEncryptionTypes></Rule></ServerSideEncryptionConfiguration>"
    )
    assert send(gateway, "PUT", f"/{bucket}?encryption", body).status == 200
    assert b"<EncryptionType>SSE-C<" in send(gateway, "GET", f"/{bucket}?encryption").body
    for make in (s3.put_object, s3.create_multipart_upload):
        assert refusal(make, Bucket=bucket, Key="k2", **customer(b"a"))[:2] == ("AccessDenied", 403)
    assert s3.get_object(Bucket=bucket, Key="k", **customer(b"a"))["Body"].read() == b"x"


def test_a_copy_onto_itself_to_change_the_encryption(s3: Any, bucket: str) -> None:
    """Allowed, since it changes something."""
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    where = {"Bucket": bucket, "Key": "k"}
    for mode in ("a", "kms-payroll", "s3"):
        opened = customer(b"a", source=True) if mode == "kms-payroll" else {}
        check_mode(s3.copy_object(Bucket=bucket, Key="k", CopySource=where, **MODES[mode], **opened), mode)
        assert s3.get_object(Bucket=bucket, Key="k", **CUSTOMERS.get(mode, {}))["Body"].read() == b"x"


def test_attributes_need_the_key(s3: Any, bucket: str) -> None:
    """GetObjectAttributes tells nothing without it, and the checksum with it."""
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumAlgorithm="SHA1", **customer(b"a"))
    key, md5 = base64.b64encode(b"a" * 32).decode(), base64.b64encode(hashlib.md5(b"a" * 32).digest()).decode()
    opened = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": key, "SSECustomerKeyMD5": md5}
    asked = {"Bucket": bucket, "Key": "k", "ObjectAttributes": ["ETag", "Checksum", "ObjectSize"]}
    assert refusal(s3.get_object_attributes, **asked)[:2] == ("InvalidRequest", 400)
    told = s3.get_object_attributes(**asked, **opened)
    assert (told["ETag"], told["ObjectSize"]) == (put["ETag"].strip('"'), 1)
    assert told["Checksum"]["ChecksumSHA1"] == put["ChecksumSHA1"]


@pytest.mark.parametrize("mode", ["plain", "kms-payroll", "a"])
def test_forms(gateway: Gateway, s3: Any, bucket: str, mode: str) -> None:
    """A browser's form asks in the same words as a PUT."""
    fields = {"kms-payroll": {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": "payroll"}, "a": customer_headers(b"a")}
    asked = {name.lower(): value for name, value in fields.get(mode, {}).items()}
    conditions: list[Any] = [["starts-with", f"${name}", ""] for name in asked]
    made = s3.generate_presigned_post(bucket, "k", Fields=dict(asked), Conditions=conditions)
    form = encode_form(made["fields"], b"from a form")
    answer = send(gateway, "POST", f"/{bucket}", form, {"Content-Type": CONTENT_TYPE}, name=None)
    assert answer.status == 204, answer.body
    got = s3.get_object(Bucket=bucket, Key="k", **CUSTOMERS.get(mode, {}))
    check_mode(got, mode)
    assert (got["Body"].read(), got["ETag"]) == (b"from a form", answer.headers["etag"])
    if mode == "a":
        assert refusal(s3.get_object, Bucket=bucket, Key="k").status == 400
