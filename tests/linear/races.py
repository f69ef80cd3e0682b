"""Races between several processes of clients, each with an access of its own to one store's metadata."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from tests.linear.checker import Operation, find_violation, format_history
from tests.linear.racer import LINE_BYTES_MAX, Race

SEED_VARIABLE = "FROSTBYTE_SEED"


def new_seed() -> str:
    """From FROSTBYTE_SEED to run a history's choices again, else fresh; printed either way."""
    seed = os.environ.get(SEED_VARIABLE) or os.urandom(4).hex()
    print(f"{SEED_VARIABLE}={seed}")
    return seed


class Races:
    """Running client processes. Made by `running_races`."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def run(self, bucket: str, seed: str, *, tasks: int, operations: int, key_count: int = 3) -> list[Operation]:
        """All processes at once, on keys that are named after the seed. → what all of them saw; they did overlap."""
        keys = tuple(f"{seed}/{name}" for name in "abcdefgh"[:key_count])
        for number, process in enumerate(self._processes):
            race = Race(f"{seed}.{number}", bucket, keys, tasks, operations)
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(race) + b"\n")
        lines = await asyncio.gather(*[_read_line(process) for process in self._processes])
        histories = [msgspec.json.decode(line, type=list[Operation]) for line in lines]
        return [operation for history in histories for operation in history]


def overlap(history: Sequence[Operation]) -> int:
    """How many pairs of writes of one key were under way at the same time."""
    writes = [it for it in history if it.kind != "read" and it.end_ns is not None]
    return sum(
        1
        for at, one in enumerate(writes)
        for other in writes[at + 1 :]
        if one.object_key == other.object_key
        and one.start_ns < (other.end_ns or 0)
        and other.start_ns < (one.end_ns or 0)
    )


def require_linearizable(history: Sequence[Operation], seed: str) -> None:
    """On failure the seed and the key's history are in the message."""
    violation = find_violation(history)
    assert not violation, f"{SEED_VARIABLE}={seed}: no order explains\n{format_history(violation)}"


async def _read_line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "a client process ended"
    return line


@asynccontextmanager
async def running_races(client_arguments: Sequence[str], processes: int, *buckets: str) -> AsyncIterator[Races]:
    """Started, connected, and ended in order; for races on these buckets."""
    started: list[asyncio.subprocess.Process] = []
    try:
        for _ in range(processes):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.linear.racer", *client_arguments, *buckets),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LINE_BYTES_MAX,
            )
            started.append(process)
        for process in started:
            assert await _read_line(process) == b"ready\n"
        yield Races(started)
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        for process in started:
            assert await process.wait() == 0


class Seeds:
    """The seeds of many runs, drawn from one that is printed; FROSTBYTE_SEED=<of a failure> runs that one alone."""

    def __init__(self, count: int) -> None:
        given = os.environ.get(SEED_VARIABLE)
        base = random.Random(new_seed())
        self.all = [given] if given else [f"{base.getrandbits(32):08x}" for _ in range(count)]
