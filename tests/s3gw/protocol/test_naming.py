"""Bucket names that AWS makes, and those it does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.errors import S3Error
from s3gw.protocol.naming import check_bucket_name


@pytest.mark.parametrize(
    "name", ["abc", "a" * 63, "my-bucket", "my.bucket", "1.2.3", "1.2.3.4a", "0aa", "a--b", "a.b.c.d", "logs-2025.03"]
)
def test_good_names(name: str) -> None:
    """Names of 3 to 63 lower-case letters, digits, dots and hyphens."""
    check_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ab",
        "a" * 64,
        "Abc",
        "a_b",
        "a b",
        "-abc",
        "abc-",
        ".abc",
        "abc.",
        "a..b",
        "a.-b",
        "a-.b",
        "192.168.5.4",
        "999.999.999.999",
        "xn--abc",
        "sthree-abc",
        "amzn-s3-demo-abc",
        "abc-s3alias",
        "abc--ol-s3",
        "abc.mrap",
        "abc--x-s3",
        "abc--table-s3",
        "abc\n",
        "bücher",
        "a/b",
        "abc\x00",
    ],
)
def test_bad_names(name: str) -> None:
    """Everything else is InvalidBucketName."""
    with pytest.raises(S3Error) as refused:
        check_bucket_name(name)
    assert (refused.value.code, refused.value.status) == ("InvalidBucketName", 400)


@given(st.text(alphabet="ab0.-_A", max_size=70))
def test_what_passes_is_a_host_name(name: str) -> None:
    """A name that passes can stand before a domain: every label is a host name's."""
    try:
        check_bucket_name(name)
    except S3Error:
        return
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", label) for label in name.split("."))
