"""Chains of writes and a sync, on real files: whole, in order, and told of once, be it well or not."""

from __future__ import annotations

import errno
import mmap
import os
import resource
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.base import uring
from storage.base.uring import CHAIN_STEPS_MAX, CHAINS_MAX, ChainEnd, Uring, Write
from tests.storage.base.rings import require_chains

WAIT_MS = 30_000


@pytest.fixture
def ring() -> Iterator[Uring]:
    require_chains()
    made = Uring()
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """Of an empty file, to be read and written."""
    made = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield made
    os.close(made)


def memory(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def wait(ring: Uring, count: int = 1) -> list[ChainEnd]:
    """Until so many chains have ended."""
    poll = select.poll()
    poll.register(ring.ready_fd, select.POLLIN)
    ended: list[ChainEnd] = []
    while len(ended) < count:
        assert poll.poll(WAIT_MS), "no chain ended"
        ended += ring.reap()
    assert len(ended) == count
    assert not ring.reap()  # the eventfd may be told later than an end is seen, and then there is nothing more to see
    return ended


def test_a_chain(ring: Uring, fd: int) -> None:
    """All of its writes, in order."""
    number = ring.begin([Write(fd, memory(b"first"), 0), Write(fd, memory(b"second"), 2)], fd)
    assert wait(ring) == [ChainEnd(number or 0, 0, True)]
    assert os.pread(fd, 100, 0) == b"fisecond"
    assert ring.begin([], fd) == 2
    assert wait(ring) == [ChainEnd(2, 0, True)]


def test_past_the_page_cache(ring: Uring, tmp_path: Path) -> None:
    """From aligned memory."""
    path = tmp_path / "file"
    path.touch()
    try:
        fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    except OSError:
        pytest.skip("the file system of the temporary directory has no O_DIRECT")
    data = memoryview(mmap.mmap(-1, 1 << 16))
    data[:] = os.urandom(len(data))
    ring.begin([Write(fd, data, 1 << 16)], fd)
    assert [end.error for end in wait(ring)] == [0]
    os.close(fd)
    assert path.read_bytes() == bytes(1 << 16) + bytes(data)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=3000)), max_size=CHAIN_STEPS_MAX - 1),
        max_size=CHAINS_MAX,
    )
)
def test_many_chains_at_once(chains: list[list[tuple[int, bytes]]]) -> None:
    """Each of a file of its own; the ring goes round several times."""
    require_chains()
    ring = Uring()
    files = [os.memfd_create("file") for _ in chains]
    numbers = [
        ring.begin([Write(fd, memory(data), offset) for offset, data in chain], fd)
        for fd, chain in zip(files, chains, strict=True)
    ]
    assert sorted(end.chain for end in wait(ring, len(chains))) == numbers
    for fd, chain in zip(files, chains, strict=True):
        expected = bytearray()
        for offset, data in chain:
            expected.extend(bytes(max(0, offset + len(data) - len(expected))))
            expected[offset : offset + len(data)] = data
        assert os.pread(fd, len(expected) + 1, 0) == expected
        os.close(fd)
    ring.close()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_step_that_fails(ring: Uring, fd: int, failing: int) -> None:
    """It is what is told of, and nothing behind it is done."""
    full = os.open("/dev/full", os.O_WRONLY)
    writes = [Write(fd, memory(b"%d" % number), number) for number in range(3)]
    writes[failing] = writes[failing]._replace(fd=full)
    number = ring.begin(writes, fd)
    assert wait(ring) == [ChainEnd(number or 0, errno.ENOSPC, False)]
    assert os.pread(fd, 10, 0) == b"012"[:failing]
    os.close(full)


def test_a_sync_that_fails(ring: Uring, fd: int) -> None:
    """After all was written."""
    null = os.open("/dev/null", os.O_WRONLY)
    number = ring.begin([Write(fd, memory(b"body"), 0)], null)
    assert wait(ring) == [ChainEnd(number or 0, errno.EINVAL, True)]
    assert os.pread(fd, 10, 0) == b"body"
    os.close(null)


def test_a_file_that_is_not_open(ring: Uring, fd: int) -> None:
    """Told of as any other failure."""
    closed = os.dup(fd)
    os.close(closed)
    for writes, synced in (([Write(closed, memory(b"body"), 0)], fd), ([Write(fd, memory(b"body"), 0)], closed)):
        ring.begin(writes, synced)
        assert [(end.error, end.has_written) for end in wait(ring)] == [(errno.EBADF, synced == closed)]


def test_a_write_that_falls_short(ring: Uring, fd: int) -> None:
    """Is one that failed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        number = ring.begin([Write(fd, memory(bytes(700)), 0), Write(fd, memory(bytes(700)), 700)], fd)
        assert wait(ring) == [ChainEnd(number or 0, errno.EIO, False)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.fstat(fd).st_size == 1000


def test_bounds(ring: Uring, fd: int) -> None:
    """Of the steps of a chain and of chains at once; there is room again once one has ended."""
    assert ring.begin([Write(fd, memory(b"x"), 0)] * CHAIN_STEPS_MAX, fd) is None
    for _ in range(CHAINS_MAX):
        assert ring.begin([Write(fd, memory(b"x"), 0)], fd) is not None
    assert ring.begin([], fd) is None
    wait(ring, CHAINS_MAX)
    assert ring.begin([], fd) is not None
    wait(ring)


@pytest.mark.parametrize("missing", ["the processor", "the call", "a feature", "the eventfd"])
def test_a_system_that_has_not_all_of_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """OSError, and nothing stays open."""
    require_chains()
    match missing:
        case "the processor":
            monkeypatch.setattr("platform.machine", lambda: "riscv64")
        case "the call":
            monkeypatch.setattr(uring, "_SETUP", 100_000)
        case "a feature":
            monkeypatch.setattr(uring, "_FEAT_CQE_SKIP", 1 << 31)
        case _:
            monkeypatch.setattr(uring, "_REGISTER", 100_000)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Function not implemented"):
        Uring()
    assert os.listdir("/proc/self/fd") == before


def test_a_chain_that_is_taken_by_halves(ring: Uring, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more is begun, and the memory is kept, as the kernel may look at it."""
    call = uring._call
    monkeypatch.setattr(uring, "_call", lambda number, of, count: call(number, of, count - 1))
    with pytest.raises(OSError, match="temporarily unavailable"):
        ring.begin([Write(fd, memory(b"body"), 0)], fd)
    monkeypatch.undo()
    with pytest.raises(OSError, match="broken"):
        ring.begin([], fd)
    ring.close()
    assert ring in uring._left_behind
    assert ring._chains


def test_a_ring_with_a_chain_under_way_is_left_behind(fd: int) -> None:
    """It hangs in a pipe that is full, and its end is told of when that is not so any more."""
    require_chains()
    ring = Uring()
    read, full = os.pipe()
    size = os.write(full, bytes(1 << 16))
    ring.begin([Write(full, memory(b"body"), 0)], fd)
    ring.close()
    assert ring in uring._left_behind
    os.read(read, size)
    assert [end.error for end in wait(ring)] == [0]
    assert os.read(read, 10) == b"body"
    ring.close()
    ring.close()
    assert ring.ready_fd == -1
    uring._left_behind.remove(ring)
    os.close(read)
    os.close(full)
