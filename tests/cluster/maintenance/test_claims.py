"""Claims on blobs: one job at a time, whatever becomes of it."""

from __future__ import annotations

import pytest

from cluster.maintenance.claims import BlobClaims


def test_one_job_at_a_time() -> None:
    """Another one is told no, and that costs the first nothing; other blobs are free."""
    claims = BlobClaims()
    with claims.claim(b"one") as first:
        assert first
        with claims.claim(b"one") as second, claims.claim(b"two") as other:
            assert (second, other) == (False, True)
        assert b"one" in claims
    assert b"one" not in claims
    with claims.claim(b"one") as again:
        assert again


def test_a_job_shares_with_itself() -> None:
    """Several chunks of one blob; and nobody else until the last of them is done."""
    claims, job, other = BlobClaims(), object(), object()
    with claims.claim(b"one", job) as first:
        with claims.claim(b"one", job) as second, claims.claim(b"one", other) as stranger, claims.claim(b"one") as any_:
            assert (first, second, stranger, any_) == (True, True, False, False)
        with claims.claim(b"one", other) as stranger:
            assert not stranger
    with claims.claim(b"one", other) as stranger:
        assert stranger


def test_a_failure_lets_go() -> None:
    """Of the claim that failed only."""
    claims, job = BlobClaims(), object()
    with claims.claim(b"one", job):
        with pytest.raises(ValueError, match="broken"), claims.claim(b"one", job):
            raise ValueError("broken")
        assert b"one" in claims
    assert b"one" not in claims
