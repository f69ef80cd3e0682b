"""PURE. Whether a recorded concurrent history could have happened in some order that respects real time.

A key is a register that holds the ETag of its current version, or None. Keys are independent, so each is judged by
itself: a history of many registers is linearizable when that of each one is (Herlihy and Wing, *Linearizability: A
Correctness Condition for Concurrent Objects*, 1990, theorem 1). A copy is a read of its source and a write of its
target (`split_copies`), each somewhere between its call and its answer: S3 does not promise more of it.

The search is Wing and Gong's: take any operation that began before every other unfinished one ended, apply it, go on.
As Lowe does (*Testing for Linearizability*, 2017), a set of operations done that was tried with a value is not tried
with it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

UNSEEN = "an ETag that nobody saw"
"""what an unanswered copy may have written, when none of the ETags that anybody saw or asked for"""
WITHOUT_EFFECT = frozenset({"SourceChanged", "ConditionalRequestConflict", "OperationAborted"})
"""refusals that say nothing about the key: somebody else was at it, or at the source"""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call as a client saw it; times are of the machine's monotonic clock.

    kind: read, put, put_absent (If-None-Match: *), put_match (If-Match: expected), delete, delete_match or copy.
    `etag`: what a write stores, what a read or a copy returned. `outcome`: `ok`, or the name of the refusal. end_ns
    None: not known whether it happened. `content`: names the body, where ETags alone do not: of a put, what it stores.
    """

    object_key: str
    kind: str
    start_ns: int
    end_ns: int | None
    outcome: str = "ok"
    etag: str | None = None
    expected: str | None = None
    content: str | None = None
    source: str = ""
    """of a copy"""
    any_of: frozenset[str] = frozenset()
    """ETags one of which a read of a copy's source saw, or an unanswered copy may have written"""


def format_history(history: Sequence[Operation]) -> str:
    """A line for each operation, in the order of their starts; times in µs since the first."""
    ordered = sorted(history, key=lambda operation: operation.start_ns)
    lines = []
    for it in ordered:
        began_us = (it.start_ns - ordered[0].start_ns) // 1000
        ended_us = "?" if it.end_ns is None else str((it.end_ns - ordered[0].start_ns) // 1000)
        expected = f" if {it.expected}" if it.kind.endswith("_match") else ""
        etag = it.etag or " or ".join(sorted(it.any_of))
        lines.append(
            f"{began_us:>8}-{ended_us:<8} {it.object_key} {it.kind} {etag}{expected}: {it.outcome or 'unknown'}"
        )
    return "\n".join(lines)


def refusal_of(operation: Operation, value: str | None) -> str:
    """What a conditional write must be answered at this value; `ok` when it goes through."""
    match operation.kind:
        case "put_absent" if value is not None:
            return "PreconditionFailed"
        case "put_match" if value is None:
            return "NoSuchKey"
        case "put_match" | "delete_match" if value is not None and value != operation.expected:
            return "PreconditionFailed"
    return "ok"


def apply_operation(value: str | None, operation: Operation) -> list[str | None]:
    """The values that the key may have after this answer was given at this value; none when it could not be given."""
    if operation.kind == "read":
        seen = value in operation.any_of if operation.any_of else value == operation.etag
        return [value] if seen and operation.outcome == ("NoSuchKey" if value is None else "ok") else []
    if operation.outcome in WITHOUT_EFFECT:
        return [value]
    refusal = refusal_of(operation, value)
    if operation.end_ns is not None and operation.outcome != refusal:
        return []
    if refusal != "ok":
        return [value]
    if operation.any_of:
        return sorted(operation.any_of)
    return [None if operation.kind.startswith("delete") else operation.etag]


def find_linearization(history: Iterable[Operation], initial: str | None = None) -> list[Operation] | None:
    """An order that explains the history of one key, or None. Operations whose outcome is not known may have happened
    at any time after their start, or not at all."""
    operations = sorted(history, key=lambda operation: operation.start_ns)
    answered = sum(1 << at for at, operation in enumerate(operations) if operation.end_ns is not None)
    tried: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None, tuple[int, ...]]] = [(0, initial, ())]
    while stack:
        done, value, order = stack.pop()
        if done & answered == answered:
            return [operations[at] for at in order]
        if (done, value) in tried:
            continue
        tried.add((done, value))
        for at in _may_be_next(operations, done):
            stack += [(done | 1 << at, after, (*order, at)) for after in apply_operation(value, operations[at])]
    return None


def _may_be_next(operations: Sequence[Operation], done: int) -> list[int]:
    """Of those left, all that began before the first of them ended."""
    left = [at for at in range(len(operations)) if not done >> at & 1]
    first_end_ns = min(end_ns for at in left if (end_ns := operations[at].end_ns) is not None)
    return [at for at in left if operations[at].start_ns <= first_end_ns]


def split_copies(history: Sequence[Operation]) -> list[Operation]:
    """Every copy as a read of its source and a write of its target, both at any time during the call.

    A copy's ETag is the content's MD5, its source's may be another (of a multipart upload): the content says which. An
    unanswered copy may have written whatever was in any source; what matters of that is what others saw at the target
    or asked it for.
    """
    contents = {it.etag: it.content for it in history if it.etag and it.content}
    split: list[Operation] = []
    for operation in history:
        if operation.kind != "copy":
            split.append(operation)
        elif operation.end_ns is None:
            split.append(msgspec.structs.replace(operation, kind="put", any_of=_seen(history, operation.object_key)))
        else:
            split += _split_answered(operation, contents)
    return split


def _seen(history: Sequence[Operation], object_key: str) -> frozenset[str]:
    of_key = [it for it in history if it.object_key == object_key or it.source == object_key]
    return frozenset({UNSEEN, *(it.etag for it in of_key if it.etag), *(it.expected for it in of_key if it.expected)})


def _split_answered(copy: Operation, contents: Mapping[str | None, str | None]) -> list[Operation]:
    if copy.outcome in WITHOUT_EFFECT:
        return []
    same = frozenset({etag for etag, content in contents.items() if etag and content == copy.etag} | {copy.etag or ""})
    read = msgspec.structs.replace(copy, object_key=copy.source, kind="read", source="", any_of=same)
    if copy.outcome == "NoSuchKey":
        return [msgspec.structs.replace(read, etag=None, any_of=frozenset())]
    return [read, msgspec.structs.replace(copy, kind="put")]


def find_violation(history: Sequence[Operation]) -> list[Operation]:
    """The operations, by start, of the first key whose history no order explains; empty when all is well."""
    split = split_copies(history)
    for object_key in sorted({operation.object_key for operation in split}):
        of_key = [operation for operation in split if operation.object_key == object_key]
        if find_linearization(of_key) is None:
            return sorted(of_key, key=lambda operation: operation.start_ns)
    return []
