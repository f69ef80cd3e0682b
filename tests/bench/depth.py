"""`python -m tests.bench.depth`: PUT and GET of small objects, a page of a listing and a deletion of 1,000 keys beside
ten thousand, a hundred thousand and a million objects; into BENCHMARKS.md.

Each number of objects has a server of its own. They run at once and are measured in turns: one after the other, minutes
apart, they were compared at whatever speed the machine happened to have, which gave ratios from 0.7 to 1.5 for what
costs the same."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench.comparison import describe_machine, make_bucket
from tests.bench.keys import BATCH, Shape, key_name
from tests.bench.load import measured, run_wrk
from tests.bench.report import format_number, replace_section
from tests.bench.scale import PAGES, build, delete_keys, list_bucket
from tests.bench.scenarios import KIB, SIZE_NAMES, Bench, Scale
from tests.bench.sides import Side, frostbyte
from tests.bench.statistics import summarize

DEPTHS = (10_000, 100_000, 1_000_000)
SIZES = (KIB, 64 * KIB)
STORED = 1_000
"""objects of each size that are read"""
REQUESTS_MAX = {"PUT": 6_000, "GET": 12_000}
"""a second, for which there are paths"""
DELETIONS = 3
"""in a round"""
ROUNDS = 3
"""of which the smallest number of objects must have enough for all deletions"""
BUCKET = "deep"


class Operation(NamedTuple):
    """One kind of operation at one depth; a page and a deletion of 1,000 keys count as one."""

    per_s: float
    cpu_ms: float
    """of all of the server's processes, for one"""
    errors: int = 0


class Deep(NamedTuple):
    """A server with that many objects, and the files of its load."""

    depth: int
    side: Side
    bench: Bench


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section. Returns 1 when a request failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.depth", description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="objects, each in a server of its own")
    parser.add_argument("--seconds", type=int, default=5, help="of requests of each kind")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="frostbyte-depth-", dir=options.directory) as name, ExitStack() as running:
        servers = []
        for depth in options.depths:
            home = Path(name) / str(depth)
            side = frostbyte(home / "frostbyte", 1)
            side.start()
            running.callback(side.stop)
            asyncio.run(build(home / "frostbyte" / "data", {BUCKET: Shape(depth)}))
            make_bucket(side)
            servers.append(Deep(depth, side, Bench(home / "bench", _scale(options.seconds))))
        found = measure(servers)
    body = render(found)
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "depth", body))
    print(body)
    return int(any(operation.errors for operations in found.values() for operation in operations.values()))


def measure(servers: Sequence[Deep]) -> dict[int, dict[str, Operation]]:
    """By number of objects and the operation's name, medians of the rounds; reads and writes are in another bucket of
    the same records, 16 in flight."""
    operations: dict[str, Callable[[Deep, int], Operation]] = {
        f"{method} {SIZE_NAMES[size]}": partial(_request, method, size) for size in SIZES for method in ("PUT", "GET")
    }
    operations |= {"List, a page of 1,000": _list, "Delete 1,000 keys": _delete}
    found: dict[int, dict[str, Operation]] = {server.depth: {} for server in servers}
    for name, operation in operations.items():
        rounds: dict[int, list[Operation]] = {server.depth: [] for server in servers}
        for number in range(ROUNDS):
            for server in servers if number % 2 else reversed(servers):
                rounds[server.depth].append(operation(server, number))
        for depth, measured_now in rounds.items():
            found[depth][name] = _median(measured_now)
    return found


def _median(rounds: Sequence[Operation]) -> Operation:
    return Operation(
        summarize([it.per_s for it in rounds]).median,
        summarize([it.cpu_ms for it in rounds]).median,
        sum(it.errors for it in rounds),
    )


def _request(method: str, size: int, server: Deep, number: int) -> Operation:
    _, side, bench = server
    wanted = REQUESTS_MAX[method] * bench.scale.round_s
    if method == "PUT":
        keys = [f"put-{size}/{number}/{it}" for it in range(wanted)]
        paths = bench.paths_file(side, method, keys, f"put-{size}")
    else:
        keys = bench.store_small(side, size)
        paths = bench.paths_file(side, method, random.Random(size).sample(keys, len(keys)), f"get-{size}")
        paths.write_text(paths.read_text() * (wanted // len(keys) + 1))
    errors = 0

    def request() -> int:
        nonlocal errors
        body = bench.body_file(size) if method == "PUT" else None
        result = run_wrk(side, method, paths, body, bench.scale.round_s)
        errors = result.errors
        return max(1, result.requests - result.errors)

    return _measure(side, request)._replace(errors=errors)


def _list(server: Deep, number: int) -> Operation:
    list_bucket(server.side, BUCKET, "", "")  # warms up
    listed = list_bucket(server.side, BUCKET, "", "")
    return Operation(PAGES / listed.wall_s, listed.cpu_s / PAGES * 1e3)


def _delete(server: Deep, number: int) -> Operation:
    def delete() -> int:
        for turn in range(DELETIONS):
            first = (number * DELETIONS + turn) * BATCH
            keys = [key_name(it, server.depth) for it in range(first, first + BATCH)]
            delete_keys(server.side, BUCKET, keys)
        return DELETIONS

    return _measure(server.side, delete)


def _measure(side: Side, work: Callable[[], int]) -> Operation:
    with measured(side) as cost:
        count = work()
    return Operation(count / cost.wall_s, cost.side_share * cost.wall_s / count * 1e3)


def _scale(seconds: int) -> Scale:
    return Scale(dict.fromkeys(SIZES, STORED), {}, 0, 1, seconds)


def render(found: Mapping[int, Mapping[str, Operation]]) -> str:
    """The section as Markdown."""
    smallest = next(iter(found))
    lines = [
        "## Small objects beside many others",
        "",
        f"Operations a second, and the processor time of one in ms over all of the server's processes; the last column "
        f"divides that of the most objects by that of {smallest:,}. One copy, 16 in flight; medians of {ROUNDS} rounds,"
        f" the servers in turns. {describe_machine()}",
        "",
        "| | " + " | ".join(f"{depth:,} objects, /s | CPU, ms" for depth in found) + " | CPU of most : fewest |",
        "| --- |" + " ---: | ---: |" * len(found) + " ---: |",
    ]
    for name in found[smallest]:
        operations = [operations[name] for operations in found.values()]
        words = [f"{format_number(it.per_s)} | {it.cpu_ms:.3f}" for it in operations]
        ratio = operations[-1].cpu_ms / operations[0].cpu_ms if operations[0].cpu_ms else 0.0
        lines.append(f"| {name} | {' | '.join(words)} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
