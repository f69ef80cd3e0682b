"""The checker itself: it must accept what is possible and reject what is not."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.linear.checker import Operation, apply_operation, find_linearization, find_violation


def op(kind: str, start: int, end: int | None, etag: str | None = None, outcome: str = "ok", **more: Any) -> Operation:
    """One operation on the key of these tests."""
    values = {"object_key": "k", "kind": kind, "start_ns": start, "end_ns": end, "etag": etag, "outcome": outcome}
    return Operation(**{**values, **more})


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
    """Two If-Match writes, or a write and a delete, from one value cannot both pass."""
    start, one = op("put", 0, 1, "a"), op("put_match", 2, 9, "b", expected="a")
    for other in (op("put_match", 3, 8, "c", expected="a"), op("delete_match", 3, 8, expected="a")):
        assert find_linearization([start, one, other]) is None
        refused = op(other.kind, 3, 8, other.etag, "PreconditionFailed", expected="a")
        assert find_linearization([start, one, refused]) is not None


def test_an_unanswered_write_may_have_happened_or_not() -> None:
    """But not before it began, and not twice."""
    lost = op("put", 2, None, "b", "")
    start = op("put", 0, 1, "a")
    assert find_linearization([start, lost, op("read", 5, 6, "a")]) is not None
    assert find_linearization([start, lost, op("read", 5, 6, "b")]) is not None
    assert find_linearization([start, lost, op("read", 5, 6, "b"), op("read", 7, 8, "a")]) is None
    assert find_linearization([op("read", 0, 1, "b"), lost]) is None
    deleted = op("delete_match", 2, None, expected="a", outcome="")
    assert find_linearization([start, deleted, op("read", 5, 6, None, "NoSuchKey")]) is not None


def test_a_refusal_that_says_nothing_fits_any_value() -> None:
    """A conflict with somebody else's request changed nothing."""
    conflict = op("put_match", 2, 3, "b", "ConditionalRequestConflict", expected="a")
    assert find_linearization([op("put", 0, 1, "a"), conflict, op("read", 4, 5, "a")]) is not None
    assert find_linearization([op("put", 0, 1, "a"), conflict, op("read", 4, 5, "b")]) is None


def test_a_copy_is_a_read_and_a_write() -> None:
    """Of what was in the source at some time during the call."""
    put, again = op("put", 0, 1, "a", object_key="s", content="a"), op("put", 4, 5, "b", object_key="s", content="b")
    copied = op("copy", 6, 9, "b", source="s")
    assert find_violation([put, again, copied, op("read", 10, 11, "b")]) == []
    assert find_violation([put, again, op("copy", 6, 9, "a", source="s")])
    assert find_violation([put, again, op("copy", 3, 9, "a", source="s"), op("read", 10, 11, "a")]) == []
    assert find_violation([put, again, copied, op("read", 10, 11, "a")])
    gone = op("copy", 6, 9, None, "NoSuchKey", source="s")
    assert find_violation([put, gone])
    assert find_violation([put, op("delete", 5, 7, object_key="s"), gone, op("read", 8, 9, None, "NoSuchKey")]) == []


def test_a_copy_of_a_multipart_object_has_an_etag_of_its_own() -> None:
    """The content says that they are the same bytes."""
    whole = op("put", 0, 1, "x-2", object_key="s", content="x")
    copied = op("copy", 2, 3, "x", source="s")
    assert (
        find_violation([whole, copied, op("read", 4, 5, "x"), op("copy", 6, 7, "x", source="k", object_key="t")]) == []
    )
    assert find_violation([whole, copied, op("read", 4, 5, "x-2")])


def test_an_unanswered_copy_may_have_written_anything_or_nothing() -> None:
    """Also what nobody saw, which shows in what is refused."""
    copied = op("copy", 2, None, None, "", source="s")
    for seen in (op("read", 4, 5, "b"), op("put_absent", 4, 5, "c", "PreconditionFailed"), op("put_absent", 4, 5, "c")):
        assert find_violation([copied, seen]) == []
    assert find_violation([copied, op("read", 0, 1, "b"), op("read", 4, 5, "b")])


def test_the_key_of_a_violation_is_told() -> None:
    """Its operations alone, in the order of their starts."""
    bad = [op("put", 0, 1, "a"), op("read", 2, 3, None, "NoSuchKey")]
    assert find_violation([*reversed(bad), op("put", 0, 1, "z", object_key="other")]) == bad


ETAGS = st.sampled_from(["a", "b"])
KINDS = st.sampled_from(["read", "put", "put_absent", "put_match", "delete", "delete_match"])


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """Short ones, with answers that may be possible or not."""
    history = []
    for _ in range(draw(st.integers(1, 5))):
        kind, start = draw(KINDS), draw(st.integers(0, 8))
        end = draw(st.one_of(st.none(), st.integers(start, 9)))
        outcome = draw(st.sampled_from(["ok", "ok", "PreconditionFailed", "NoSuchKey"]))
        etag = draw(ETAGS) if outcome == "ok" or kind != "read" else None
        history.append(op(kind, start, end, etag, outcome, expected=draw(ETAGS)))
    return history


def is_possible_by_trial(history: list[Operation]) -> bool:
    """Every order of every choice of unanswered operations is tried."""
    answered = [it for it in history if it.end_ns is not None]
    unanswered = [it for it in history if it.end_ns is None]
    for count in range(len(unanswered) + 1):
        for chosen in itertools.combinations(unanswered, count):
            for order in itertools.permutations([*answered, *chosen]):
                if any(
                    later.end_ns is not None and later.end_ns < earlier.start_ns
                    for earlier, later in itertools.combinations(order, 2)
                ):
                    continue
                values: set[str | None] = {None}
                for operation in order:
                    values = {after for value in values for after in apply_operation(value, operation)}
                if values:
                    return True
    return False


@given(histories())
def test_the_search_finds_what_trying_every_order_finds(history: list[Operation]) -> None:
    """No more and no less."""
    assert (find_linearization(history) is not None) == is_possible_by_trial(history)
