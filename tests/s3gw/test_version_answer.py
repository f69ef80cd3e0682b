"""What is told of a version: the filled-in form is that of all headers, one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3gw.protocol.encryption import SSE_S3_LINES
from s3gw.short_answer import format_lines
from s3gw.version_answer import describe_version, format_plain
from storage.model import Attributes, Bucket, Version, Versioning

IDENTITY = (b"0123456789ABCDEF", b"host%b")
WORDS = st.dictionaries(st.sampled_from(["expires", "cache-control"]), st.just("a"), max_size=1)


def bucket_of(versioning: Versioning = Versioning.UNVERSIONED, settings: dict[str, bytes] | None = None) -> Bucket:
    """One that was just made."""
    return Bucket(1, "bucket", "owner", "us-east-1", 0, "bk-0", versioning, settings or {})


def version_of(attributes: Attributes, size: int = 5, last_modified_ms: int = 1_700_000_000_123) -> Version:
    """The only one of its key."""
    return Version(1, b"key", 1, b"uid-uid-", True, False, size, "0" * 32, last_modified_ms, "owner", attributes)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20),
    WORDS,
    WORDS,
    WORDS,
    st.sampled_from(["STANDARD", "STANDARD_IA"]),
    st.integers(0, 2**40),
    st.integers(0, 4_000_000_000_000),
)
def test_a_plain_answer_is_filled_in(
    content_type: str,
    headers: dict[str, str],
    user_metadata: dict[str, str],
    tags: dict[str, str],
    storage_class: str,
    length: int,
    last_modified_ms: int,
) -> None:
    """With what the headers say; where there is more to a version it is not, and only there."""
    attributes = Attributes(content_type, headers, user_metadata, storage_class, tags=tags)
    bucket, version = bucket_of(), version_of(attributes, length, last_modified_ms)
    found = format_plain(bucket, version, IDENTITY, length, SSE_S3_LINES)
    if headers or user_metadata or tags or storage_class != "STANDARD":
        assert found is None
        return
    described = describe_version(bucket, version, SSE_S3_LINES, is_current=True)
    identity = [(b"x-amz-request-id", IDENTITY[0]), (b"x-amz-id-2", IDENTITY[1])]
    assert found == format_lines([*identity, *described, (b"content-length", b"%d" % length)])


@pytest.mark.parametrize(
    "bucket",
    [bucket_of(Versioning.ENABLED), bucket_of(Versioning.SUSPENDED), bucket_of(settings={"lifecycle": b"<a/>"})],
)
def test_a_bucket_with_more_to_tell(bucket: Bucket) -> None:
    """Versions are named, and days of expiry."""
    assert format_plain(bucket, version_of(Attributes()), IDENTITY, 5, SSE_S3_LINES) is None


def test_a_type_cannot_end_a_header() -> None:
    """As everywhere."""
    with pytest.raises(ValueError, match="control character"):
        format_plain(bucket_of(), version_of(Attributes("a\r\nx: y")), IDENTITY, 5, SSE_S3_LINES)
