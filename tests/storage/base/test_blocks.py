"""Blocks are given out again when the last reference to them is gone, whatever kind it was, and never before."""

from __future__ import annotations

import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from storage.base.blocks import BLOCK_BYTES, WORTH_BYTES_MIN, BlockPool

SIZE = 1 << 20


def pool_of(blocks_max: int) -> BlockPool:
    """One that keeps so many."""
    pool = BlockPool()
    pool.keep(blocks_max)
    return pool


def test_a_block_is_used_again() -> None:
    """Once the view that was given out is gone."""
    pool = pool_of(2)
    first = pool.take(SIZE)
    first[:3] = b"abc"
    del first
    assert bytes(pool.take(SIZE)[:3]) == b"abc"
    assert pool.held_bytes == BLOCK_BYTES


def test_a_view_of_a_part_keeps_it() -> None:
    """Also one of another size and kind."""
    pool = pool_of(2)
    part = memoryview(pool.take(SIZE)[100:164]).cast("Q").toreadonly()
    other = pool.take(SIZE)
    assert other.obj is not part.obj
    assert pool.held_bytes == 2 * BLOCK_BYTES
    del part
    third = pool.take(SIZE)
    assert third.obj is not other.obj
    assert pool.held_bytes == 2 * BLOCK_BYTES


def test_a_thread_that_reads_keeps_it() -> None:
    """A buffer that C code holds is a reference as well."""
    pool, go, done = pool_of(2), threading.Event(), threading.Event()

    def read(view: memoryview) -> None:
        stream = memoryview(view)
        del view
        go.wait()
        stream.release()
        del stream
        done.set()

    thread = threading.Thread(target=read, args=(pool.take(SIZE),))
    thread.start()
    held = pool.take(SIZE)
    assert pool.held_bytes == 2 * BLOCK_BYTES
    go.set()
    done.wait()
    thread.join()
    del thread
    assert pool.take(SIZE).obj is not held.obj
    assert pool.held_bytes == 2 * BLOCK_BYTES


def test_no_more_are_kept_than_the_bound() -> None:
    """What is needed beyond is made, and forgotten; without a bound nothing is kept."""
    pool = pool_of(2)
    views = [pool.take(SIZE) for _ in range(5)]
    assert len({id(view.obj) for view in views}) == 5
    assert pool.held_bytes == 2 * BLOCK_BYTES
    pool.keep(0)
    assert pool.held_bytes == 0
    assert BlockPool().take(SIZE).nbytes == SIZE


def test_unusual_sizes_are_made_anew() -> None:
    """Small ones and what is larger than a block."""
    pool = pool_of(2)
    for size in (0, 1, WORTH_BYTES_MIN - 1, BLOCK_BYTES + 1):
        assert pool.take(size).nbytes == size
    assert pool.held_bytes == 0
    assert pool.take(BLOCK_BYTES).nbytes == BLOCK_BYTES
    assert pool.take(WORTH_BYTES_MIN).nbytes == WORTH_BYTES_MIN


def test_what_does_not_fill_a_block_is_no_larger_than_it_seems() -> None:
    """Where that is asked for."""
    pool = pool_of(2)
    small = pool.take_filling(WORTH_BYTES_MIN)
    assert isinstance(small.obj, bytearray)
    assert len(small.obj) == small.nbytes == WORTH_BYTES_MIN
    assert pool.held_bytes == 0
    assert pool.take_filling(SIZE).nbytes == SIZE
    assert pool.held_bytes == BLOCK_BYTES


def test_memory_is_given_back_when_nothing_was_taken() -> None:
    """Between two sheds; what somebody still has stays known."""
    pool = pool_of(4)
    held = pool.take(SIZE)
    pool.take(SIZE)
    pool.shed()
    assert pool.held_bytes == 2 * BLOCK_BYTES
    pool.shed()
    assert pool.held_bytes == BLOCK_BYTES
    del held
    pool.shed()
    assert pool.held_bytes == 0


@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_no_two_have_the_same_memory(seed: int, steps: int) -> None:
    """Whatever is taken and let go in whatever order: every block in use keeps what was written into it."""
    chance, pool = random.Random(seed), pool_of(3)
    held: list[tuple[memoryview, bytes]] = []
    for number in range(steps):
        if held and chance.random() < 0.5:
            held.pop(chance.randrange(len(held)))
        view, mark = pool.take(WORTH_BYTES_MIN), b"%8d" % number
        view[:8] = mark
        held.append((view[:8] if chance.random() < 0.5 else view, mark))
        del view
        assert all(view[:8] == mark for view, mark in held)
