"""Whether a recorded concurrent history of one key could have happened in some order that respects real time.

A key is a register that holds the ETag of its current version, or None. The search is Wing and Gong's: take any
operation that began before every other unfinished one ended, apply it, go on; a set of (operations done, value) that
was tried is not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Operation(msgspec.Struct, frozen=True):
    """One call as a client saw it; times are of the machine's monotonic clock.

    kind: read, put, put_absent (If-None-Match: *), put_match (If-Match: expected) or delete. `etag`: what a write
    stores, what a read returned. `outcome`: `ok`, or the name of the refusal. end_ns None: never answered.
    """

    object_key: str
    kind: str
    start_ns: int
    end_ns: int | None
    outcome: str
    etag: str | None = None
    expected: str | None = None


def apply_operation(value: str | None, operation: Operation) -> tuple[bool, str | None]:
    """(could this answer be given at this value, the value after it)."""
    if operation.kind == "read":
        return (operation.outcome == ("NoSuchKey" if value is None else "ok") and operation.etag == value), value
    refusal = "ok"
    if operation.kind == "put_absent" and value is not None:
        refusal = "PreconditionFailed"
    elif operation.kind == "put_match" and value is None:
        refusal = "NoSuchKey"
    elif operation.kind == "put_match" and value != operation.expected:
        refusal = "PreconditionFailed"
    if operation.end_ns is None:
        return True, operation.etag if refusal == "ok" else value
    if operation.outcome == "SourceChanged":  # a copy whose source went away: refused whatever the value is
        return True, value
    return operation.outcome == refusal, operation.etag if refusal == "ok" else value


def find_linearization(history: Sequence[Operation], initial: str | None = None) -> list[Operation] | None:
    """An order that explains the history, or None. Operations that were never answered may have happened at any time
    after their start, or not at all."""
    operations = sorted(history, key=lambda operation: operation.start_ns)
    answered = sum(1 << at for at, operation in enumerate(operations) if operation.end_ns is not None)
    tried: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None, list[int]]] = [(0, initial, [])]
    while stack:
        done, value, order = stack.pop()
        if done & answered == answered:
            return [operations[at] for at in order]
        if (done, value) in tried:
            continue
        tried.add((done, value))
        first_end = min(
            operation.end_ns
            for at, operation in enumerate(operations)
            if operation.end_ns is not None and not done >> at & 1
        )
        for at, operation in enumerate(operations):
            if operation.start_ns > first_end:
                break
            if not done >> at & 1:
                possible, after = apply_operation(value, operation)
                if possible:
                    stack.append((done | 1 << at, after, [*order, at]))
    return None
