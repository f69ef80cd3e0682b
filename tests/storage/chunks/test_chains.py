"""Whoever began a chain is told how it ended; threads take over where there are none, and nothing hangs at the end."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.base import uring
from storage.base.uring import CHAINS_MAX, ChainEnd, Uring, Write
from storage.chunks import chains as module
from storage.chunks.chains import Chains
from tests.storage.base.rings import require_chains


@pytest.fixture
async def chains() -> AsyncIterator[Chains]:
    require_chains()
    made = Chains()
    yield made
    await made.close()


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)


def run(chains: Chains, writes: list[Write], fd: int) -> asyncio.Future[ChainEnd] | None:
    """How it ends; None where threads are to do it."""
    ended: asyncio.Future[ChainEnd] = asyncio.get_running_loop().create_future()
    return ended if chains.run(writes, fd, ended.set_result) else None


def body(data: bytes, fd: int, offset: int = 0) -> list[Write]:
    return [Write(fd, memoryview(bytearray(data)), offset)]


async def test_each_is_told_how_it_ended(chains: Chains, fd: int) -> None:
    """Several at once, one of which fails."""
    full = os.open("/dev/full", os.O_WRONLY)
    running = [run(chains, body(b"%d" % at, full if at == 3 else fd, at), fd) for at in range(6)]
    ends = await asyncio.gather(*[ended for ended in running if ended is not None])
    assert [end.error for end in ends] == [0, 0, 0, errno.ENOSPC, 0, 0]
    assert os.pread(fd, 10, 0) == b"012\x0045"


async def test_more_than_there_is_room_for(chains: Chains, fd: int) -> None:
    """Is for threads to do; and later on there is room."""
    running = [run(chains, body(b"x", fd), fd) for _ in range(CHAINS_MAX + 1)]
    assert running.pop() is None
    await asyncio.gather(*[ended for ended in running if ended is not None])
    again = run(chains, body(b"x", fd), fd)
    assert again is not None
    assert (await again).error == 0


async def test_a_system_without_is_asked_once(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And then never again."""
    asked: list[Uring] = []

    def refuse(ring: Uring) -> None:
        asked.append(ring)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Uring, "__init__", refuse)
    chains = Chains()
    assert not chains.is_refused
    assert [run(chains, [], fd) for _ in range(3)] == [None] * 3
    assert chains.is_refused
    assert not chains.is_broken
    assert len(asked) == 1
    await chains.close()


async def test_a_ring_that_breaks(chains: Chains, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun before is told how it ended; everything else is for threads."""
    begun = run(chains, body(b"before", fd), fd)
    assert begun is not None
    call = uring._call
    monkeypatch.setattr(uring, "_call", lambda number, of, count: call(number, of, count - 1))
    assert run(chains, body(b"after", fd, 100), fd) is None
    assert chains.is_refused
    assert chains.is_broken
    monkeypatch.undo()
    assert (await begun).error == 0
    assert run(chains, [], fd) is None


async def test_a_chain_that_hangs_does_not_hold_up_the_end(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, but not for ever."""
    require_chains()
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.1)
    chains = Chains()
    read, full = os.pipe()
    os.write(full, bytes(1 << 16))
    stuck = run(chains, body(b"x", full), fd)
    await chains.close()
    assert stuck is not None
    assert not stuck.done()
    assert run(chains, [], fd) is None
    os.close(read)  # and the chain ends
    os.close(full)
