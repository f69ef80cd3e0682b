"""What clients ask of encryption: every combination of headers is understood or refused with AWS's code."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.seal import Seal
from s3gw.protocol.bucket_encryption import BucketEncryption, format_bucket_encryption
from s3gw.protocol.encryption import (
    PLAIN,
    SSE_S3_LINES,
    choose_encryption,
    find_key_id,
    format_encryption,
    parse_customer_key,
    parse_read_key,
    parse_source_key,
    recall_encryption,
)
from s3gw.protocol.errors import S3Error
from storage.model import Attributes, Bucket

HEADER = "x-amz-server-side-encryption"
BUCKET = Bucket(1, "b", "o" * 64, "us-east-1", 0, "bk-" + "0" * 32)
CODES = {"InvalidArgument", "InvalidEncryptionAlgorithmError", "KMS.NotFoundException", "AccessDenied"}
NAMES = ["", "-aws-kms-key-id", "-context", "-bucket-key-enabled"]
CUSTOMER_NAMES = ["-customer-algorithm", "-customer-key", "-customer-key-md5"]


def customer_headers(secret: bytes, prefix: str = HEADER) -> dict[str, str]:
    """As a client sends its key."""
    md5 = base64.b64encode(hashlib.md5(secret).digest()).decode()
    key = base64.b64encode(secret).decode()
    return {f"{prefix}-customer-algorithm": "AES256", f"{prefix}-customer-key": key, f"{prefix}-customer-key-md5": md5}


def bucket_with(encryption: BucketEncryption) -> Bucket:
    """A bucket with this default."""
    return Bucket(
        1, "b", "o" * 64, "r", 0, BUCKET.bucket_key_id, settings={"encryption": format_bucket_encryption(encryption)}
    )


def refused(headers: dict[str, str], bucket: Bucket = BUCKET) -> S3Error:
    """The refusal of a write."""
    with pytest.raises(S3Error) as caught:
        choose_encryption(headers, bucket)
    return caught.value


values = st.sampled_from(["", "AES256", "aws:kms", "aws:kms:dsse", "true", "payroll", "e30="]) | st.text(max_size=40)


@given(
    headers=st.dictionaries(st.sampled_from([HEADER + name for name in NAMES + CUSTOMER_NAMES]), values),
    default=st.sampled_from([None, BucketEncryption("aws:kms", "payroll"), BucketEncryption(blocked="SSE-C")]),
)
def test_any_headers(headers: dict[str, str], default: BucketEncryption | None) -> None:
    """An answer, or a refusal with one of AWS's codes; what is chosen is consistent with itself."""
    bucket = BUCKET if default is None else bucket_with(default)
    try:
        chosen = choose_encryption(headers, bucket)
    except S3Error as error:
        assert error.code in CODES
        return
    assert (chosen.seal is None) == (not chosen.sse)
    applied = chosen.apply(Attributes(sse={"mode": "left over"}))
    assert applied.sse == chosen.sse
    assert all(b"\n" not in value for _, value in chosen.lines)


@given(secret=st.binary(min_size=32, max_size=32))
def test_a_customers_key(secret: bytes) -> None:
    """Every key of 32 bytes is taken, for the object and for the source of a copy, and confirmed by its MD5."""
    headers = customer_headers(secret)
    key = parse_customer_key(headers)
    assert key is not None
    assert key.secret == secret
    assert parse_read_key(headers) == key
    assert parse_source_key(customer_headers(secret, "x-amz-copy-source-server-side-encryption")) == key
    assert parse_source_key(headers) is None
    chosen = choose_encryption(headers, BUCKET)
    assert chosen.seal == Seal(customer_key=key)
    assert dict(chosen.lines)[b"x-amz-server-side-encryption-customer-key-md5"].decode() == key.md5_base64
    assert secret.hex() not in repr(chosen)


@given(secret=st.binary(max_size=64).filter(lambda secret: len(secret) != 32))
def test_a_key_of_another_length(secret: bytes) -> None:
    """Refused, and not shown."""
    error = refused(customer_headers(secret))
    assert error.code == "InvalidArgument"
    assert not secret or base64.b64encode(secret).decode() not in f"{error} {error.extra}" or len(secret) < 4


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"-customer-algorithm": ""}, "InvalidArgument", "a valid encryption algorithm"),
        ({"-customer-algorithm": "AES128"}, "InvalidEncryptionAlgorithmError", "AES256"),
        ({"-customer-key": ""}, "InvalidArgument", "an appropriate secret key"),
        ({"-customer-key": "%%%"}, "InvalidArgument", "invalid for the specified algorithm"),
        ({"-customer-key-md5": ""}, "InvalidArgument", "client calculated MD5"),
        ({"-customer-key-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "InvalidArgument", "did not match the hash"),
        ({"-customer-key-md5": "é"}, "InvalidArgument", "did not match the hash"),
        ({"": "AES256"}, "InvalidArgument", "incompatible with the encryption method"),
        ({"": "aws:kms"}, "InvalidArgument", "incompatible with the encryption method"),
        ({"-aws-kms-key-id": "payroll"}, "InvalidArgument", "incompatible with the encryption method"),
    ],
)
def test_a_customers_key_that_is_not_whole(change: dict[str, str], code: str, message: str) -> None:
    """Each header alone can spoil it."""
    error = refused(customer_headers(b"k" * 32) | {HEADER + name: value for name, value in change.items()})
    assert error.code == code
    assert message in error.message


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"": "AES192"}, "InvalidArgument"),
        ({"": "aws:fsx"}, "InvalidArgument"),
        ({"-aws-kms-key-id": "payroll"}, "InvalidArgument"),
        ({"": "AES256", "-aws-kms-key-id": "payroll"}, "InvalidArgument"),
        ({"": "AES256", "-context": "e30="}, "InvalidArgument"),
        ({"": "aws:kms", "-aws-kms-key-id": "../system"}, "KMS.NotFoundException"),
        ({"": "aws:kms", "-aws-kms-key-id": "a" * 3000}, "KMS.NotFoundException"),
        ({"": "aws:kms", "-context": "{}"}, "InvalidArgument"),
        ({"": "aws:kms", "-context": base64.b64encode(b"[" * 3000).decode()}, "InvalidArgument"),
    ],
)
def test_what_does_not_go_together(headers: dict[str, str], code: str) -> None:
    """Refused before anything is read."""
    assert refused({HEADER + name: value for name, value in headers.items()}).code == code


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3))
def test_contexts(context: dict[str, str]) -> None:
    """Every JSON object of strings, in base64."""
    text = base64.b64encode(json.dumps(context).encode()).decode()
    chosen = choose_encryption({HEADER: "aws:kms", f"{HEADER}-context": text}, BUCKET)
    assert dict(chosen.lines)[f"{HEADER}-context".encode()].decode() == text


@pytest.mark.parametrize(
    ("name", "key_id"),
    [
        ("", ""),
        ("alias/aws/s3", ""),
        ("arn:aws:kms:us-east-1:111122223333:alias/aws/s3", ""),
        (BUCKET.bucket_key_id, ""),
        ("payroll", "named-payroll"),
        ("alias/payroll", "named-payroll"),
        ("arn:aws:kms:us-east-1:111122223333:key/payroll", "named-payroll"),
        ("arn:aws-cn:kms:cn-north-1:111122223333:alias/payroll", "named-payroll"),
        ("bk-" + "1" * 32, "named-bk-" + "1" * 32),
    ],
)
def test_names_of_keys(name: str, key_id: str) -> None:
    """A named key or the bucket's own; another bucket's cannot be named."""
    assert find_key_id(name, BUCKET) == key_id


@given(st.text())
def test_any_name_of_a_key(name: str) -> None:
    """Names no file but one of a named key."""
    try:
        key_id = find_key_id(name, BUCKET)
    except S3Error as error:
        assert error.code == "KMS.NotFoundException"
    else:
        assert key_id == "" or (key_id.startswith("named-") and "/" not in key_id)


def test_the_default_of_a_bucket() -> None:
    """Holds where headers say nothing; its bucket key holds where they name the mode alone."""
    bucket = bucket_with(BucketEncryption("aws:kms", "payroll", True))
    chosen = choose_encryption({}, bucket)
    assert chosen.sse == {"mode": "aws:kms", "key": "payroll", "bucket_key": "true"}
    assert chosen.seal == Seal("named-payroll")
    assert choose_encryption({HEADER: "AES256"}, bucket) == PLAIN
    asked = choose_encryption({HEADER: "aws:kms"}, bucket)
    assert asked.sse == {"mode": "aws:kms", "key": BUCKET.bucket_key_id, "bucket_key": "true"}
    assert choose_encryption({f"{HEADER}-bucket-key-enabled": "false"}, bucket).sse == {
        "mode": "aws:kms",
        "key": "payroll",
    }
    assert refused(customer_headers(b"k" * 32), bucket_with(BucketEncryption(blocked="SSE-C"))).code == "AccessDenied"


def test_what_is_plain_is_the_same_object() -> None:
    """Nothing is made for a request that says nothing."""
    assert choose_encryption({"content-type": "text/plain"}, BUCKET) is PLAIN
    assert PLAIN.lines is SSE_S3_LINES
    attributes = Attributes()
    assert PLAIN.apply(attributes) is attributes
    assert parse_read_key({"host": "x"}) is None


@pytest.mark.parametrize("name", NAMES)
def test_reads_ask_for_nothing(name: str) -> None:
    """GET and HEAD with a header of a write are refused; an empty one is none."""
    with pytest.raises(S3Error) as caught:
        parse_read_key({HEADER + name: "x"})
    assert caught.value.code == "InvalidArgument"
    assert parse_read_key({HEADER + name: ""}) is None


def test_parts() -> None:
    """Go under what the upload was created with, whatever headers of SSE-S3 or SSE-KMS come along."""
    kms = {"mode": "aws:kms", "key": "payroll"}
    assert recall_encryption({}, {HEADER: "aws:kms"}, BUCKET) == PLAIN
    recalled = recall_encryption(kms, {HEADER: "aws:kms", f"{HEADER}-aws-kms-key-id": "nobody"}, BUCKET)
    assert (recalled.seal, recalled.sse) == (Seal("named-payroll"), kms)
    assert recall_encryption({"mode": "aws:kms", "key": BUCKET.bucket_key_id}, {}, BUCKET).seal == Seal("")
    customer = recall_encryption({"mode": "customer"}, customer_headers(b"k" * 32), BUCKET)
    assert customer.seal is not None
    assert customer.seal.customer_key is not None
    assert recall_encryption({"mode": "customer"}, {}, BUCKET).seal is None


def test_answers() -> None:
    """Of each mode; nothing of a customer's key without the key."""
    assert format_encryption({}) == [(b"x-amz-server-side-encryption", b"AES256")]
    assert format_encryption({"mode": "customer", "check": "00"}) == []
    assert dict(format_encryption({"mode": "aws:kms:dsse", "key": "payroll", "bucket_key": "true"})) == {
        b"x-amz-server-side-encryption": b"aws:kms:dsse",
        b"x-amz-server-side-encryption-aws-kms-key-id": b"payroll",
        b"x-amz-server-side-encryption-bucket-key-enabled": b"true",
    }
