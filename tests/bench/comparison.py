"""Scenarios on several sides in alternating rounds: rows of a table."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.bench.processes import read_pss_mib
from tests.bench.report import Cell, Row
from tests.bench.requests import SignedConnection
from tests.bench.scenarios import Sample, Scenario
from tests.bench.sides import Side
from tests.bench.statistics import summarize

SETTLE_S = 5
"""between a start and what is idle"""


def run_scenario(scenario: Scenario, sides: list[Side], rounds: int) -> Row:
    """Round 0 warms up; each later round runs the sides in the other order. A side that fails is left out."""
    samples: dict[str, list[Sample]] = {}
    working = list(sides)
    for side in sides:
        samples[side.name] = []
        for member in (side, *side.twins):
            _attempt(side, working, partial(scenario.prepare, member, rounds))
    for number in range(rounds + 1):
        for side in list(working if number % 2 else reversed(working)):
            _attempt(side, working, partial(_take_sample, scenario, side, number, samples[side.name]))
    cells = {side.name: _cell(samples[side.name][1:]) for side in working}
    return Row(scenario.name, scenario.unit, scenario.higher_is_better, cells)


def _take_sample(scenario: Scenario, side: Side, number: int, samples: list[Sample]) -> None:
    members = [side, *side.twins]
    with ThreadPoolExecutor(len(members)) as threads:
        samples.append(add_up(list(threads.map(lambda member: scenario.run(member, number), members))))


def add_up(samples: Sequence[Sample]) -> Sample:
    """What gateways of one store did at the same time. Each sample saw the processor time of all."""
    latencies = [sample.p99_ms for sample in samples if sample.p99_ms is not None]
    return Sample(
        value=sum(sample.value for sample in samples),
        generator_share=max(sample.generator_share for sample in samples),
        side_share=max(sample.side_share for sample in samples),
        p99_ms=max(latencies, default=None),
        errors=sum(sample.errors for sample in samples),
    )


def _attempt(side: Side, working: list[Side], work: Callable[[], None]) -> None:
    """Do the work; a side that fails at it is reported and leaves this scenario."""
    if side not in working:
        return
    try:
        work()
    except (RuntimeError, AssertionError, ValueError, OSError) as error:
        print(f"{side.name}: {error}", file=sys.stderr)
        working.remove(side)


def _cell(samples: Sequence[Sample]) -> Cell:
    latencies = [sample.p99_ms for sample in samples if sample.p99_ms is not None]
    return Cell(
        spread=summarize([sample.value for sample in samples]),
        generator_share=statistics.median(sample.generator_share for sample in samples),
        side_share=statistics.median(sample.side_share for sample in samples),
        p99_ms=statistics.median(latencies) if latencies else None,
        errors=sum(sample.errors for sample in samples),
    )


def start_up_row(sides: list[Side]) -> Row:
    cells = {side.name: Cell(summarize([side.start_up_s])) for side in sides if side.pids()}
    return Row("Start-up to the first PUT", "s", False, cells)


def idle_memory_row(sides: list[Side]) -> Row:
    """Once what was only there for the start has had the time to go."""
    time.sleep(SETTLE_S)
    return memory_row("Resident memory after start", sides)


def memory_row(name: str, sides: list[Side]) -> Row:
    cells = {side.name: Cell(summarize([read_pss_mib(side.pids())])) for side in sides if side.pids()}
    return Row(name, "MiB", False, cells)


def make_bucket(side: Side) -> None:
    for member in (side, *side.twins):
        connection = SignedConnection(member.endpoint)
        connection.send("PUT", f"/{member.bucket}")
        connection.close()


def say(row: Row) -> None:
    shown = ", ".join(f"{name} {cell.spread.median:,.1f}" for name, cell in row.cells.items())
    print(f"{row.name} ({row.unit}): {shown}", file=sys.stderr, flush=True)


def describe_machine() -> str:
    models = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{os.cpu_count()} processors ({', '.join(sorted(models)) or 'unknown'}), "
        f"{memory_kib / 1024**2:.0f} GiB of memory, Linux {platform.release()}, Python {platform.python_version()}."
    )
