"""The checker itself: it must accept what is possible and reject what is not."""

from __future__ import annotations

from tests.storage.metadata.linearizability import Operation, find_linearization


def op(
    kind: str, start: int, end: int | None, etag: str | None = None, outcome: str = "ok", expected: str = ""
) -> Operation:
    """One operation on the key of these tests."""
    return Operation("k", kind, start, end, outcome, etag, expected)


def test_a_sequential_history_is_accepted() -> None:
    """In its own order."""
    history = [op("put", 0, 1, "a"), op("read", 2, 3, "a"), op("delete", 4, 5), op("read", 6, 7, None, "NoSuchKey")]
    assert find_linearization(history) == history


def test_a_stale_read_is_rejected() -> None:
    """It began after the overwrite was acknowledged."""
    history = [op("put", 0, 1, "a"), op("put", 2, 3, "b"), op("read", 4, 5, "a")]
    assert find_linearization(history) is None


def test_a_read_beside_a_write_may_see_either_value() -> None:
    """But two reads in order may not see the new value and then the old one."""
    writes = [op("put", 0, 1, "a"), op("put", 2, 20, "b")]
    assert find_linearization([*writes, op("read", 3, 4, "a"), op("read", 5, 6, "b")]) is not None
    assert find_linearization([*writes, op("read", 3, 4, "b"), op("read", 5, 6, "a")]) is None


def test_two_winners_of_one_absent_put_are_rejected() -> None:
    """One of them must have been refused."""
    first, second = op("put_absent", 0, 9, "a"), op("put_absent", 1, 8, "b")
    assert find_linearization([first, second]) is None
    refused = op("put_absent", 1, 8, "b", "PreconditionFailed")
    assert find_linearization([first, refused]) is not None


def test_a_lost_update_is_rejected() -> None:
    """Two If-Match writes from one value cannot both pass."""
    start = op("put", 0, 1, "a")
    one, two = op("put_match", 2, 9, "b", expected="a"), op("put_match", 3, 8, "c", expected="a")
    assert find_linearization([start, one, two]) is None
    assert find_linearization([start, one, op("put_match", 3, 8, "c", "PreconditionFailed", "a")]) is not None


def test_an_unanswered_write_may_have_happened_or_not() -> None:
    """But not before it began, and not twice."""
    lost = op("put", 2, None, "b", "")
    start = op("put", 0, 1, "a")
    assert find_linearization([start, lost, op("read", 5, 6, "a")]) is not None
    assert find_linearization([start, lost, op("read", 5, 6, "b")]) is not None
    assert find_linearization([start, lost, op("read", 5, 6, "b"), op("read", 7, 8, "a")]) is None
