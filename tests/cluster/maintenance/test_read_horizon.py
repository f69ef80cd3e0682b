"""The read horizon: whatever clocks, workers and readers do, no release that a running read may hold is given to the
sweep; and when nothing is in the way, everything is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.maintenance.read_horizon import LOOKS_MAX, ReadHorizon
from storage.model import SessionState, WriteSession

MARGIN_S = 15.0
RENEW_S = 5.0
LOOK_S = 30.0
HOUR_S = 3600.0


class Worker:
    """One session, its running reads (steady time of their beginning) and a renewal that may be on its way."""

    def __init__(self, session_id: bytes, now_ms: int) -> None:
        self.record = WriteSession(session_id, "w", SessionState.OPEN, now_ms, now_ms, now_ms)
        self.reads: list[float] = []
        self.sent: tuple[float, int] | None = None


class World:
    """An owner whose clock may be set but never goes backwards, workers, a sweeper that looks, and releases."""

    def __init__(self, worker_count: int = 2) -> None:
        self.steady_s = 0.0
        self.wall_ms = self.owner_ms = 10**12
        self.workers = [Worker(bytes([number]) * 8, self.owner_ms) for number in range(worker_count)]
        self.horizon = ReadHorizon(MARGIN_S)
        self.cutoff_ms = -1
        self.releases: list[tuple[float, int]] = []
        """(steady time, what the owner recorded)"""

    def wait(self, seconds: float) -> None:
        """Renewals that were sent arrive within the margin, whatever happens."""
        self.steady_s += seconds
        self.set_wall(seconds)
        for number, worker in enumerate(self.workers):
            if worker.sent is not None and self.steady_s - worker.sent[0] > MARGIN_S / 2:
                self.arrive(number)

    def set_wall(self, seconds: float) -> None:
        """The wall clock jumps."""
        self.wall_ms += round(seconds * 1000)
        self.owner_ms = max(self.owner_ms, self.wall_ms)

    def begin_read(self, number: int) -> None:
        self.workers[number].reads.append(self.steady_s)

    def end_read(self, number: int) -> None:
        """The youngest or the only one."""
        if self.workers[number].reads:
            self.workers[number].reads.pop()

    def send(self, number: int) -> None:
        """The age is measured now; it is recorded when it arrives."""
        worker = self.workers[number]
        if worker.sent is None:
            age_ms = int((self.steady_s - min(worker.reads)) * 1000) + 1 if worker.reads else 0
            worker.sent = (self.steady_s, age_ms)

    def arrive(self, number: int) -> None:
        worker = self.workers[number]
        if worker.sent is not None:
            record, age_ms = worker.record, worker.sent[1]
            renewed_ms = max(record.renewed_ms, self.owner_ms)
            oldest_ms = max(record.oldest_read_ms, self.owner_ms - age_ms)
            worker.record = WriteSession(
                record.session_id, "w", SessionState.OPEN, record.opened_ms, renewed_ms, oldest_ms
            )
            worker.sent = None

    def release(self) -> None:
        self.releases.append((self.steady_s, self.owner_ms))

    def look(self) -> None:
        """And hold the promise."""
        self.cutoff_ms = self.horizon.look([worker.record for worker in self.workers], self.steady_s)
        began_s = min((began_s for worker in self.workers for began_s in worker.reads), default=None)
        for released_s, released_ms in self.releases:
            if released_ms < self.cutoff_ms:
                assert began_s is None or began_s > released_s, "a running read may hold what would be swept"

    def live(self, seconds: float) -> None:
        """Workers renew and the sweeper looks, as they do."""
        end_s = self.steady_s + seconds
        next_look_s = self.steady_s + LOOK_S
        while self.steady_s < end_s:
            self.wait(RENEW_S)
            for number in range(len(self.workers)):
                self.send(number)
                self.arrive(number)
            if self.steady_s >= next_look_s:
                self.look()
                next_look_s += LOOK_S


steps = st.one_of(
    st.tuples(st.just("wait"), st.floats(0, 20)),
    st.tuples(st.just("set_wall"), st.floats(-200, 200)),
    st.tuples(st.just("set_wall"), st.floats(-3 * HOUR_S, 3 * HOUR_S)),
    st.tuples(st.sampled_from(["begin_read", "begin_read", "end_read", "send", "arrive"]), st.integers(0, 1)),
    st.tuples(st.sampled_from(["release", "look", "look"])),
    st.tuples(st.just("live"), st.floats(0, 200)),
)


@settings(max_examples=200)
@given(st.lists(steps, min_size=30, max_size=60))
def test_nothing_is_given_that_a_running_read_may_hold(history: list[tuple[str, float]]) -> None:
    """Clocks jump by hours, renewals are late, reads last as long as they like."""
    world = World()
    for name, *arguments in history:
        getattr(world, name)(*arguments)
    world.look()


@given(st.lists(steps, max_size=30))
def test_in_the_end_everything_is_given(history: list[tuple[str, float]]) -> None:
    """Once no read is left that is older, and the owner's clock has caught up with itself."""
    world = World()
    for name, *arguments in history:
        getattr(world, name)(*arguments)
    for worker in world.workers:
        worker.reads.clear()
    world.set_wall(max(0, (world.owner_ms - world.wall_ms) / 1000 + 1))
    world.release()
    world.live(6 * LOOK_S)
    assert all(released_ms < world.cutoff_ms for _, released_ms in world.releases)


@pytest.mark.parametrize("jump_s", [-2 * HOUR_S, 2 * HOUR_S])
def test_a_long_read_across_a_jump(jump_s: float) -> None:
    """The clock is set while an object that was deleted is still being read; it goes when the read has ended."""
    world = World(1)
    world.live(60)
    world.begin_read(0)
    world.live(60)
    world.release()
    world.live(120)
    world.set_wall(jump_s)
    world.live(120)
    world.set_wall(-jump_s / 2)
    world.live(3 * HOUR_S)
    assert world.cutoff_ms <= world.releases[0][1]
    world.end_read(0)
    world.live(4 * LOOK_S)
    assert world.cutoff_ms > world.releases[0][1]


def test_a_renewal_that_is_late() -> None:
    """It says that nothing is read, which was true when it was sent; a read began and an object was deleted since."""
    world = World(2)
    world.live(60)
    world.send(0)
    world.begin_read(0)
    world.wait(1)
    world.release()
    for _ in range(3):
        world.wait(1)
        world.send(1)
        world.arrive(1)
        world.look()
    world.arrive(0)
    world.wait(1)
    world.look()
    assert world.cutoff_ms <= world.releases[0][1]


def test_a_renewal_right_before_a_look() -> None:
    """It may have been recorded at any time since the look before."""
    world = World(1)
    world.live(60)
    world.send(0)
    world.arrive(0)
    world.begin_read(0)
    world.wait(1)
    world.release()
    world.wait(300)
    for _ in range(3):
        world.look()
        world.wait(1)
    assert world.cutoff_ms <= world.releases[0][1]


def test_how_soon_a_release_is_given() -> None:
    """With nothing in the way: at the fourth look at the latest."""
    world = World()
    world.live(10 * LOOK_S)
    world.release()
    world.live(4 * LOOK_S)
    assert world.cutoff_ms > world.releases[0][1]


def test_silence_is_counted_from_what_was_seen() -> None:
    """Not from what the record says; a session that is over is not silent."""
    horizon = ReadHorizon(MARGIN_S)
    old = WriteSession(b"a" * 8, "w", SessionState.OPEN, 0, 0, 0)
    assert horizon.silent_s == 0
    horizon.look([old], 1000.0)
    assert horizon.silent_s == 0
    horizon.look([old, WriteSession(b"b" * 8, "w", SessionState.OPEN, 5, 5, 5)], 1040.0)
    assert horizon.silent_s == 40
    horizon.look([WriteSession(b"a" * 8, "w", SessionState.FENCED, 0, 0, 0)], 1100.0)
    assert horizon.silent_s == 0


def test_a_release_that_becomes_visible_late() -> None:
    """Stamped before a renewal that was seen, and visible after it: a read that began in between still holds it."""
    world = World(1)
    world.live(60)
    stamped_ms = world.owner_ms
    world.wait(MARGIN_S / 2)
    world.send(0)
    world.arrive(0)
    world.look()
    world.begin_read(0)
    world.releases.append((world.steady_s, stamped_ms))
    world.live(10 * LOOK_S)
    assert world.cutoff_ms <= stamped_ms


def test_memory_is_bounded() -> None:
    """A read of days costs a bounded number of looks, and what was released before it still goes."""
    world = World(1)
    world.live(60)
    world.release()
    world.live(150)
    world.begin_read(0)
    for _ in range(LOOKS_MAX + 50):
        world.wait(30)
        world.send(0)
        world.arrive(0)
        world.look()
    assert len(world.horizon._looks) == LOOKS_MAX
    assert world.cutoff_ms > world.releases[0][1]
    world.release()
    world.end_read(0)
    world.live(5 * LOOK_S)
    assert world.cutoff_ms > world.releases[1][1]
