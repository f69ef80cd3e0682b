"""`python -m tests.bench.depth`: PUT and GET of small objects, a page of a listing and a deletion of 1,000 keys beside
ten thousand, a hundred thousand and a million objects; into BENCHMARKS.md."""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.comparison import describe_machine, make_bucket
from tests.bench.keys import BATCH, Shape, key_name
from tests.bench.load import measured, run_wrk
from tests.bench.report import format_number, replace_section
from tests.bench.scale import PAGES, build, delete_keys, list_bucket
from tests.bench.scenarios import KIB, SIZE_NAMES, Bench, Scale
from tests.bench.sides import Side, frostbyte

DEPTHS = (10_000, 100_000, 1_000_000)
SIZES = (KIB, 64 * KIB)
STORED = 1_000
"""objects of each size that are read"""
REQUESTS_MAX = {"PUT": 6_000, "GET": 12_000}
"""a second, for which there are paths"""
DELETIONS = 5
BUCKET = "deep"


class Operation(NamedTuple):
    """One kind of operation at one depth; a page and a deletion of 1,000 keys count as one."""

    per_s: float
    cpu_ms: float
    """of all of the server's processes, for one"""
    errors: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section. Returns 1 when a request failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.depth", description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="objects, each in a server of its own")
    parser.add_argument("--seconds", type=int, default=5, help="of requests of each kind")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    found: dict[int, Mapping[str, Operation]] = {}
    for depth in options.depths:
        with tempfile.TemporaryDirectory(prefix="frostbyte-depth-", dir=options.directory) as name:
            home = Path(name)
            side = frostbyte(home / "frostbyte", 1)
            side.start()
            try:
                asyncio.run(build(home / "frostbyte" / "data", {BUCKET: Shape(depth)}))
                found[depth] = measure(side, Bench(home / "bench", _scale(options.seconds)), depth)
            finally:
                side.stop()
    body = render(found)
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "depth", body))
    print(body)
    return int(any(operation.errors for operations in found.values() for operation in operations.values()))


def measure(side: Side, bench: Bench, depth: int) -> dict[str, Operation]:
    """By the operation's name; reads and writes are in another bucket of the same records, 16 in flight."""
    make_bucket(side)
    found = {}
    for size in SIZES:
        for method in ("PUT", "GET"):
            found[f"{method} {SIZE_NAMES[size]}"] = _request(side, bench, method, size)
    list_bucket(side, BUCKET, "", "")  # warms up
    listed = list_bucket(side, BUCKET, "", "")
    found["List, a page of 1,000"] = Operation(PAGES / listed.wall_s, listed.cpu_s / PAGES * 1e3)

    def delete() -> int:
        for number in range(DELETIONS):
            first = number * BATCH % depth
            delete_keys(side, BUCKET, [key_name(it, depth) for it in range(first, first + BATCH)])
        return DELETIONS

    found["Delete 1,000 keys"] = _measure(side, delete)
    return found


def _request(side: Side, bench: Bench, method: str, size: int) -> Operation:
    wanted = REQUESTS_MAX[method] * bench.scale.round_s
    if method == "PUT":
        keys = [f"put-{size}/{number}" for number in range(wanted)]
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
        f"divides that of the most objects by that of {smallest:,}. One copy, 16 in flight. {describe_machine()}",
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
