"""What a bucket's settings say of the redundancy of its blobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.bucket_redundancy import STOPPED, is_rewrite_stopped, redundancy_of_blob, redundancy_of_bucket
from cluster.redundancy import parse_redundancy, replicated
from storage.base.errors import Corrupt
from storage.metadata.commands import REDUNDANCY_SETTING, REWRITE_SETTING
from storage.model import Bucket

DEFAULT = replicated(2)


def bucket_with(**settings: bytes) -> Bucket:
    """Of these settings."""
    return Bucket(1, "films", "o" * 64, "us-east-1", 0, "bk", settings=settings)


def test_a_bucket_says_or_the_cluster_does() -> None:
    """And small blobs of an erasure-coded one use replicas."""
    assert redundancy_of_bucket(bucket_with(), DEFAULT) == DEFAULT
    coded = bucket_with(**{REDUNDANCY_SETTING: b"ec:4+2"})
    assert redundancy_of_bucket(coded, DEFAULT) == parse_redundancy("ec:4+2")
    assert redundancy_of_blob(coded, DEFAULT, 1 << 20) == parse_redundancy("ec:4+2")
    assert redundancy_of_blob(coded, DEFAULT, 100_000) == replicated(3)
    assert redundancy_of_blob(bucket_with(), parse_redundancy("ec:4+2"), 100_000) == replicated(3)


@given(st.binary(max_size=40))
def test_what_cannot_be_read_is_never_guessed(setting: bytes) -> None:
    """Corrupt, or just what was written."""
    bucket = bucket_with(**{REDUNDANCY_SETTING: setting})
    try:
        found = redundancy_of_bucket(bucket, DEFAULT)
    except Corrupt as error:
        assert "films" in str(error)
    else:
        assert str(found).encode() == setting


@pytest.mark.parametrize(("setting", "is_stopped"), [(None, False), (STOPPED, True), (b"", False), (b"yes", False)])
def test_laying_out_anew_is_stopped_by_one_word(setting: bytes | None, is_stopped: bool) -> None:
    """Which the setting holds."""
    settings = {} if setting is None else {REWRITE_SETTING: setting}
    assert is_rewrite_stopped(bucket_with(**settings)) == is_stopped
