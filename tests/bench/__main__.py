"""`python -m tests.bench`: Frostbyte beside SeaweedFS (and others) in one run; writes BENCHMARKS.md."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.bench.load import missing_programs
from tests.bench.processes import read_pss_mib
from tests.bench.report import Cell, Row, Table, render_table, replace_section
from tests.bench.requests import SignedConnection
from tests.bench.scenarios import BUCKET, FULL, QUICK, Bench, Sample, Scale, Scenario, choose_scenarios
from tests.bench.sides import Side, frostbyte, moto_server, rclone_serve, running_endpoint, seaweedfs
from tests.bench.statistics import summarize

TITLE = "# Benchmarks\n\nWritten by `make bench` (`python -m tests.bench`) and `python -m tests.bench.memory`.\n"
METHOD = """\
All sides run at once on this machine and are measured in turns, the order reversed every round; the table shows
medians and ranges of the rounds after one warm-up round. The small objects are read and written with 16 requests in
flight by wrk, every request with a URL presigned beforehand, every PUT with a key of its own; answers other than 2xx
do not count. CPU is processor time per second of wall time (1.00 is one processor) of the load generator, which
shares the machine, and of the server's processes; the figures stand in the order of the sides. Ratios are by medians;
above 1.00 the first side is ahead. Start-up is the time from the first process to the first accepted PUT. Memory is
PSS, summed over each side's processes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run each comparison and write the file. Returns the exit status."""
    options = _parse(arguments)
    if missing := missing_programs():
        print(f"missing: {', '.join(missing)} (Debian packages wrk and curl; s5cmd comes with `make bench`)")
        return 1
    scale = QUICK if options.quick else FULL
    scale = scale._replace(rounds=options.rounds) if options.rounds else scale
    tables = []
    with tempfile.TemporaryDirectory(prefix="frostbyte-bench-", dir=options.directory) as name:
        for copies in options.copies:
            home = Path(name) / f"copies-{copies}"
            tables.append(_compare(_choose_sides(options, home, copies), home, scale, copies, options.only))
    body = "\n".join([f"## Side by side\n\n{_describe_machine()}\n\n{METHOD}\n", *tables])
    output = Path(options.output)
    document = output.read_text() if output.exists() else TITLE
    output.write_text(replace_section(document, "comparison", body))
    print(body)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts and one round: about two minutes")
    parser.add_argument("--rounds", type=int, help="measured rounds (3; with --quick 1)")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--without", nargs="+", default=[], choices=["frostbyte", "seaweedfs"])
    parser.add_argument("--seaweed-fsync", action="store_true", help="add SeaweedFS told to sync")
    parser.add_argument("--rclone", action="store_true", help="add rclone serve s3")
    parser.add_argument("--moto", action="store_true", help="add moto_server")
    parser.add_argument("--endpoint", nargs="+", default=[], help="URLs of running endpoints to add")
    parser.add_argument("--only", default="", help="a part of the names of the scenarios to run")
    parser.add_argument("--frostbyte-arguments", default="", help="further words for `frostbyte up`")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    return parser.parse_args(arguments)


def _choose_sides(options: argparse.Namespace, home: Path, copies: int) -> list[Side]:
    sides: list[Side] = []
    if "frostbyte" not in options.without:
        sides.append(frostbyte(home / "frostbyte", copies, options.frostbyte_arguments.split()))
    if "seaweedfs" not in options.without:
        sides.append(seaweedfs(home / "seaweedfs", copies))
    if options.seaweed_fsync:
        sides.append(seaweedfs(home / "seaweedfs-synced", copies, fsync=True))
    if options.rclone:
        sides.append(rclone_serve(home / "rclone"))
    if options.moto:
        sides.append(moto_server(home / "moto"))
    return [*sides, *(running_endpoint(url, home / f"endpoint-{n}") for n, url in enumerate(options.endpoint))]


def _compare(sides: list[Side], home: Path, scale: Scale, copies: int, only: str) -> str:
    """Start all sides, run every scenario in alternating rounds, stop them, and render the table."""
    bench = Bench(home / "files", scale)
    rows: list[Row] = []
    try:
        for side in sides:
            side.start()
            _make_bucket(side)
        idle = _memory_row("Resident memory after start", sides)
        for scenario in choose_scenarios(bench, only):
            rows.append(_run_scenario(scenario, sides, scale.rounds))
            _say(rows[-1])
        rows += [_start_up_row(sides), idle, _memory_row("Resident memory after the load", sides)]
    finally:
        for side in sides:
            side.stop()
    notes = [f"{side.name} {side.version}: {side.fsync}" for side in sides]
    notes.append(f"{scale.rounds} rounds; PUTs and GETs of {scale.round_s} s each")
    title = "One copy of the data" if copies == 1 else f"{copies} copies of the data"
    return render_table(Table(title, [side.name for side in sides], notes, rows))


def _run_scenario(scenario: Scenario, sides: list[Side], rounds: int) -> Row:
    """Round 0 warms up; each later round runs the sides in the other order. A side that fails is left out."""
    samples: dict[str, list[Sample]] = {}
    working = list(sides)
    for side in sides:
        samples[side.name] = []
        _attempt(side, working, partial(scenario.prepare, side, rounds))
    for number in range(rounds + 1):
        for side in list(working if number % 2 else reversed(working)):
            _attempt(side, working, partial(_take_sample, scenario, side, number, samples[side.name]))
    cells = {side.name: _cell(samples[side.name][1:]) for side in working}
    return Row(scenario.name, scenario.unit, scenario.higher_is_better, cells)


def _take_sample(scenario: Scenario, side: Side, number: int, samples: list[Sample]) -> None:
    samples.append(scenario.run(side, number))


def _attempt(side: Side, working: list[Side], work: Callable[[], None]) -> None:
    """Do the work; a side that fails at it is reported and leaves this scenario."""
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


def _start_up_row(sides: list[Side]) -> Row:
    cells = {side.name: Cell(summarize([side.start_up_s])) for side in sides if side.pids()}
    return Row("Start-up to the first PUT", "s", False, cells)


def _memory_row(name: str, sides: list[Side]) -> Row:
    cells = {side.name: Cell(summarize([read_pss_mib(side.pids())])) for side in sides if side.pids()}
    return Row(name, "MiB", False, cells)


def _make_bucket(side: Side) -> None:
    connection = SignedConnection(side.endpoint)
    connection.send("PUT", f"/{BUCKET}")
    connection.close()


def _say(row: Row) -> None:
    shown = ", ".join(f"{name} {cell.spread.median:,.1f}" for name, cell in row.cells.items())
    print(f"{row.name} ({row.unit}): {shown}", file=sys.stderr, flush=True)


def _describe_machine() -> str:
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


if __name__ == "__main__":
    raise SystemExit(main())
