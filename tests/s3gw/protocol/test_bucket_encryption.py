"""The document of a bucket's default encryption: round trips, and everything that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.bucket_encryption import (
    BucketEncryption,
    format_bucket_encryption,
    parse_bucket_encryption,
    parse_stored_encryption,
)
from s3gw.protocol.errors import S3Error

key_names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60)
encryptions = st.builds(BucketEncryption, st.just("AES256"), st.just(""), st.booleans(), st.just("")) | st.builds(
    BucketEncryption,
    st.sampled_from(["aws:kms", "aws:kms:dsse"]),
    key_names,
    st.booleans(),
    st.sampled_from(["", "NONE", "SSE-C"]),
)


def parse(rule: str) -> BucketEncryption:
    """A document with this inside."""
    return parse_bucket_encryption(
        f"<ServerSideEncryptionConfiguration>{rule}</ServerSideEncryptionConfiguration>".encode()
    )


@given(encryptions)
def test_round_trip(encryption: BucketEncryption) -> None:
    """What is given back can be put again."""
    assert parse_bucket_encryption(format_bucket_encryption(encryption)) == encryption
    assert parse_stored_encryption(format_bucket_encryption(encryption)) == encryption


def test_nothing_stored() -> None:
    """AES256 holds, as for every bucket on AWS."""
    assert parse_stored_encryption(None) == BucketEncryption("AES256", "", False, "")


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("", "MalformedXML"),
        ("<Rule/>", "MalformedXML"),
        ("<Rule><ApplyServerSideEncryptionByDefault/></Rule>", "MalformedXML"),
        (2 * "<Rule><BucketKeyEnabled>true</BucketKeyEnabled></Rule>", "MalformedXML"),
        ("<Rule><BucketKeyEnabled>perhaps</BucketKeyEnabled></Rule>", "MalformedXML"),
        ("<Rule><BlockedEncryptionTypes/></Rule>", "MalformedXML"),
        (
            "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES128</SSEAlgorithm>"
            "</ApplyServerSideEncryptionByDefault></Rule>",
            "MalformedXML",
        ),
        (
            "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm>"
            "<KMSMasterKeyID>payroll</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule>",
            "InvalidArgument",
        ),
        (
            "<Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm>"
            "<KMSMasterKeyID>a b</KMSMasterKeyID></ApplyServerSideEncryptionByDefault></Rule>",
            "InvalidArgument",
        ),
    ],
)
def test_refused(rule: str, code: str) -> None:
    """With AWS's code."""
    with pytest.raises(S3Error) as caught:
        parse(rule)
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """End in a refusal."""
    with pytest.raises(S3Error) as caught:
        parse_bucket_encryption(body)
    assert caught.value.code == "MalformedXML"
