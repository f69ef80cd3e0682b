"""`python -m tests.bench.crowds`: what each side holds, idle and while crowds read and write objects of 64 KiB; into
BENCHMARKS.md."""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.comparison import SETTLE_S, describe_machine, make_bucket
from tests.bench.load import run_wrk
from tests.bench.processes import PeakMemory, read_pss_mib
from tests.bench.report import format_number, replace_section
from tests.bench.scenarios import KIB, Bench, Scale
from tests.bench.sides import Side, frostbyte, seaweedfs

SIZE = 64 * KIB
CROWDS = (1, 16, 128, 512)
"""clients at once, each with a connection"""
STORED = 1_000
"""objects that are read"""
READS_MAX, WRITES_MAX = 12_000, 2_000
"""requests a second for which there are paths"""


class Crowd(NamedTuple):
    """One run of one side."""

    requests_per_s: float
    p99_ms: float
    errors: int
    peak_mib: float
    """PSS of all of the side's processes"""


class Held(NamedTuple):
    """One side: PSS before any crowd came, and each crowd by its method and size, in the order they came in."""

    idle_mib: float
    crowds: Mapping[tuple[str, int], Crowd]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section. Returns 1 when a crowd met an error of Frostbyte."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowds", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="that each crowd stays")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--without-seaweedfs", action="store_true")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    held: dict[str, Held] = {}
    with tempfile.TemporaryDirectory(prefix="frostbyte-crowds-", dir=options.directory) as name:
        home = Path(name)
        bench = Bench(home / "bench", Scale({SIZE: STORED}, {}, 0, 1, options.seconds))
        make_sides = [frostbyte] if options.without_seaweedfs else [frostbyte, seaweedfs]
        for number, make_side in enumerate(make_sides):
            side = make_side(home / f"side-{number}", options.copies)
            side.start()
            try:
                make_bucket(side)
                held[side.name] = measure(side, bench, options.seconds)
            finally:
                side.stop()
    body = render(held, options.copies)
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "crowds", body))
    print(body)
    return int(any(crowd.errors for crowd in held["Frostbyte"].crowds.values()))


def measure(side: Side, bench: Bench, seconds: int) -> Held:
    """Every crowd of readers, then every crowd of writers, each smallest first."""
    time.sleep(SETTLE_S)
    idle_mib = read_pss_mib(side.pids())
    bench.store_small(side, SIZE)
    crowds = {}
    for method in ("GET", "PUT"):
        for clients in CROWDS:
            paths = write_paths(side, bench, method, clients, seconds)
            side.in_flight = clients
            with PeakMemory(side.pids) as memory:
                result = run_wrk(side, method, paths, bench.body_file(SIZE) if method == "PUT" else None, seconds)
            crowds[method, clients] = Crowd(result.requests_per_s, result.p99_ms, result.errors, memory.peak_mib)
    return Held(idle_mib, crowds)


def write_paths(side: Side, bench: Bench, method: str, clients: int, seconds: int) -> Path:
    """The stored objects in one random order again and again, or new ones for this crowd."""
    if method == "PUT":
        keys = [f"crowd-{clients}/{number}" for number in range(WRITES_MAX * seconds)]
        return bench.paths_file(side, method, keys, "crowd-put")
    keys = bench.store_small(side, SIZE)
    paths = bench.paths_file(side, method, random.Random(SIZE).sample(keys, len(keys)), "crowd-get")
    paths.write_text(paths.read_text() * (READS_MAX * seconds // len(keys) + 1))
    return paths


def render(held: Mapping[str, Held], copies: int) -> str:
    """The section as Markdown."""
    idle = ", ".join(f"{name} {format_number(side.idle_mib)}" for name, side in held.items())
    lines = [
        "## Memory with crowds of clients",
        "",
        f"PSS of all processes of a side in MiB, the highest while each crowd reads or writes objects of 64 KiB,"
        f" {copies} cop{'y' if copies == 1 else 'ies'}. Idle, before the first: {idle}. {describe_machine()}",
        "",
        "| | " + " | ".join(f"{name}, MiB | requests/s | p99, ms | errors" for name in held) + " |",
        "| --- |" + " ---: | ---: | ---: | ---: |" * len(held),
    ]
    for method, clients in next(iter(held.values())).crowds:
        words = [f"{method}, {clients} client{'s' if clients > 1 else ''}"]
        for side in held.values():
            crowd = side.crowds[method, clients]
            words += map(format_number, (crowd.peak_mib, crowd.requests_per_s, crowd.p99_ms))
            words.append(str(crowd.errors))
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
