"""The queue of repairs against a plain model of it: order, bound, and what becomes of failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.maintenance.repair_queue import RETRY_MAX_S, RepairItem, RepairQueue


def item(number: int, losses_left: int, attempts: int = 0) -> RepairItem:
    """The chunk of this number."""
    return RepairItem(number.to_bytes(16, "big"), 0, losses_left, piece_bytes=10 + number, attempts=attempts)


class QueueMachine(RuleBasedStateMachine):
    """Everything in any order."""

    @initialize(items_max=st.integers(1, 6))
    def begin(self, items_max: int) -> None:
        """A small one."""
        self.queue = RepairQueue(items_max)
        self.items_max = items_max
        self.now_s = 0.0
        self.waiting: list[RepairItem] = []
        self.deferred: list[tuple[float, RepairItem]] = []
        self.taken: list[RepairItem] = []

    @rule(number=st.integers(0, 9), losses_left=st.integers(-2, 3))
    def add(self, number: int, losses_left: int) -> None:
        """Known ones change their danger; when it is full the least endangered, newest one is left out."""
        new = item(number, losses_left)
        self.queue.add(new)
        busy = {it.key for it in self.taken} | {it.key for _, it in self.deferred}
        if new.key in busy:
            self.deferred = [
                (due_s, new._replace(attempts=it.attempts) if it.key == new.key else it) for due_s, it in self.deferred
            ]
            return
        known = [it for it in self.waiting if it.key == new.key]
        if known and known[0].losses_left == losses_left:
            return
        self.waiting = [it for it in self.waiting if it.key != new.key]
        self.waiting.append(new)
        if not known and len(self.waiting) + len(busy) > self.items_max:
            worst = max(self.waiting, key=lambda it: (it.losses_left, self.waiting.index(it)))
            self.waiting.remove(worst)
            assert self.queue.overflowed

    @rule(seconds=st.floats(0, 400))
    def pass_time(self, seconds: float) -> None:
        """Failures become due."""
        self.now_s += seconds

    @rule()
    def take(self) -> None:
        """The most endangered, of those the oldest."""
        due = [entry for entry in self.deferred if entry[0] <= self.now_s]
        self.deferred = [entry for entry in self.deferred if entry[0] > self.now_s]
        self.waiting += [it for _, it in sorted(due, key=lambda entry: entry[0])]
        expected = min(self.waiting, key=lambda it: it.losses_left, default=None)
        taken = self.queue.take(self.now_s)
        assert (taken.key if taken else None) == (expected.key if expected else None)
        if expected is not None:
            assert taken is not None
            assert taken.losses_left == expected.losses_left
            self.waiting.remove(expected)
            self.taken.append(taken)

    @precondition(lambda self: self.taken)
    @rule()
    def finish(self) -> None:
        """The repair succeeded."""
        self.queue.done(self.taken.pop())

    @precondition(lambda self: self.taken)
    @rule()
    def fail(self) -> None:
        """It did not."""
        failed = self.taken.pop()
        self.queue.defer(failed, self.now_s)
        due_s = self.now_s + min(RETRY_MAX_S, 5 * 2**failed.attempts)
        self.deferred.append((due_s, failed._replace(attempts=failed.attempts + 1)))

    @invariant()
    def counts(self) -> None:
        """Of everything that is not done."""
        if not hasattr(self, "queue"):
            return
        everything = [*self.waiting, *self.taken, *(it for _, it in self.deferred)]
        assert len(self.queue) == len(everything)
        assert self.queue.piece_bytes == sum(it.piece_bytes for it in everything)
        assert self.queue.is_idle == (not self.waiting and not self.taken)
        assert self.queue.under_way == len(self.taken)


TestQueue = QueueMachine.TestCase


def test_a_repair_that_failed_is_tried_again_with_strays_that_were_found_since() -> None:
    """Whoever asks for it without having looked for any does not make them forgotten."""
    queue = RepairQueue()
    queue.add(item(1, 0))
    failed = queue.take(0.0)
    assert failed is not None
    queue.defer(failed, 0.0)
    queue.add(item(1, -1)._replace(strays=(7,)))
    queue.add(item(1, -1))
    assert queue.take(RETRY_MAX_S) == item(1, -1, attempts=1)._replace(strays=(7,))
    queue.add(item(2, 0)._replace(strays=(8,)))
    queue.add(item(2, 1))
    assert queue.take(RETRY_MAX_S) == item(2, 1)._replace(strays=(8,))


@given(st.lists(st.integers(-2, 5), max_size=50), st.integers(1, 20))
def test_what_is_left_out_is_never_more_endangered(dangers: list[int], items_max: int) -> None:
    """Of any sequence the queue keeps as endangered ones as there were."""
    queue = RepairQueue(items_max)
    for number, losses_left in enumerate(dangers):
        queue.add(item(number, losses_left))
    kept = []
    while (taken := queue.take(0.0)) is not None:
        kept.append(taken.losses_left)
    assert kept == sorted(dangers)[:items_max]
    assert queue.overflowed == (len(dangers) > items_max)
