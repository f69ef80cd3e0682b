"""`python -m tests.bench`: Frostbyte beside SeaweedFS (and others) in one run; writes BENCHMARKS.md."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from storage.metadata.settings import JOURNAL_LOCAL, JOURNAL_REPLICATED
from tests.bench.catalogue import choose_scenarios
from tests.bench.comparison import (
    describe_machine,
    idle_memory_row,
    make_bucket,
    memory_row,
    run_scenario,
    say,
    start_up_row,
)
from tests.bench.load import missing_programs
from tests.bench.report import Row, Table, render_table, replace_section
from tests.bench.scenarios import FULL, QUICK, Bench, Scale
from tests.bench.sides import Side, frostbyte, moto_server, rclone_serve, running_endpoint, seaweedfs

TITLE = "# Benchmarks\n\nWritten by `make bench` (`python -m tests.bench`) and `python -m tests.bench.memory`.\n"
METHOD = """\
All sides run at once on this machine and are measured in turns, the order reversed every round; the table shows
medians and ranges of the rounds after one warm-up round. The small objects are read and written with 16 requests in
flight by wrk, every request with a URL presigned beforehand, every PUT with a key of its own; answers other than 2xx
do not count. CPU is processor time per second of wall time (1.00 is one processor) of the load generator, which
shares the machine, and of the server's processes; the figures stand in the order of the sides. Ratios are by medians;
above 1.00 the first side is ahead; there is none where a load generator took more processor time than its server.
Start-up is the time from the first process to the first accepted PUT. Memory is PSS, summed over each side's
processes; after start means five seconds after the last side accepted a PUT."""


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
            title = "One copy of the data" if copies == 1 else f"{copies} copies of the data, {options.journal} journal"
            tables.append(_compare(_choose_sides(options, home, copies), home, scale, title, options.only))
    body = "\n".join([f"## Side by side\n\n{describe_machine()}\n\n{METHOD}\n", *tables])
    output = Path(options.output)
    document = output.read_text() if output.exists() else TITLE
    output.write_text(replace_section(document, "comparison", body))
    print(body)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts and one round: about two minutes")
    parser.add_argument("--rounds", type=int, help="measured rounds (5; with --quick 1)")
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    parser.add_argument("--without", nargs="+", default=[], choices=["frostbyte", "seaweedfs"])
    parser.add_argument("--seaweed-fsync", action="store_true", help="add SeaweedFS told to sync")
    parser.add_argument("--rclone", action="store_true", help="add rclone serve s3, at one copy")
    parser.add_argument("--moto", action="store_true", help="add moto_server, at one copy")
    parser.add_argument("--endpoint", nargs="+", default=[], help="URLs of running endpoints to add")
    parser.add_argument("--only", default="", help="a part of the names of the scenarios to run")
    parser.add_argument(
        "--journal",
        default=JOURNAL_REPLICATED,
        choices=[JOURNAL_LOCAL, JOURNAL_REPLICATED],
        help="of Frostbyte's metadata where there are 2 copies; at one copy it is local",
    )
    parser.add_argument("--frostbyte-arguments", default="", help="further words for `frostbyte up`")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    return parser.parse_args(arguments)


def _choose_sides(options: argparse.Namespace, home: Path, copies: int) -> list[Side]:
    sides: list[Side] = []
    if "frostbyte" not in options.without:
        journal = JOURNAL_LOCAL if copies == 1 else options.journal
        sides.append(frostbyte(home / "frostbyte", copies, options.frostbyte_arguments.split(), journal))
    if "seaweedfs" not in options.without:
        sides.append(seaweedfs(home / "seaweedfs", copies))
    if options.seaweed_fsync:
        sides.append(seaweedfs(home / "seaweedfs-synced", copies, fsync=True))
    if options.rclone and copies == 1:
        sides.append(rclone_serve(home / "rclone"))
    if options.moto and copies == 1:
        sides.append(moto_server(home / "moto"))
    return [*sides, *(running_endpoint(url, home / f"endpoint-{n}") for n, url in enumerate(options.endpoint))]


def _compare(sides: list[Side], home: Path, scale: Scale, title: str, only: str) -> str:
    """Start all sides, run every scenario in alternating rounds, stop them, and render the table."""
    bench = Bench(home / "files", scale)
    rows: list[Row] = []
    try:
        for side in sides:
            side.start()
            make_bucket(side)
        idle = idle_memory_row(sides)
        for scenario in choose_scenarios(bench, only):
            rows.append(run_scenario(scenario, sides, scale.rounds))
            say(rows[-1])
        rows += [start_up_row(sides), idle, memory_row("Resident memory after the load", sides)]
    finally:
        for side in sides:
            side.stop()
        shutil.rmtree(home)  # 40 GiB of a whole run, which the next one may need
    notes = [f"{side.name} {side.version}: {side.fsync}" for side in sides]
    notes.append(f"{scale.rounds} rounds; PUTs and GETs of {scale.round_s} s each")
    return render_table(Table(title, [side.name for side in sides], notes, rows))


if __name__ == "__main__":
    raise SystemExit(main())
