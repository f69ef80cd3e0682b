"""`python -m tests.bench.engines`: small objects and listings over each metadata engine, through one gateway and
through two; into BENCHMARKS.md."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench.comparison import describe_machine, idle_memory_row, make_bucket, memory_row, run_scenario, say
from tests.bench.load import missing_programs
from tests.bench.report import Row, Table, render_table, replace_section
from tests.bench.scenarios import FULL, KIB, QUICK, Bench, Listing, Scale, Scenario, SmallGet, SmallPut
from tests.bench.sides import IN_FLIGHT, Side, frostbyte, further_gateway
from tests.postgres_server import PostgresServer

COPIES = 2
SIZES = (KIB, 64 * KIB)
DATABASE_SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "1GB"}
SYNCED = "synced before every answer"
METHOD = f"""\
As above, with one worker a gateway, three datanodes and {COPIES} copies. Everything, the databases and the load
generator included, shares this machine: two gateways show what the second one costs as much as what it brings. The
load is the same for all sides: {IN_FLIGHT} requests in flight, of two gateways half through each (which then have a
bucket each). CPU and memory of a side include its database."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section. Returns the exit status."""
    options = _parse(arguments)
    if missing := missing_programs():
        print(f"missing: {', '.join(missing)} (Debian packages wrk and curl; s5cmd comes with `make bench`)")
        return 1
    scale = QUICK if options.quick else FULL
    scale = scale._replace(
        rounds=options.rounds or scale.rounds,
        stored_counts={size: count for size, count in scale.stored_counts.items() if size in SIZES},
        large_bytes=0,
    )
    with tempfile.TemporaryDirectory(prefix="frostbyte-bench-", dir=options.directory) as name, ExitStack() as running:
        sides = _make_sides(Path(name), running)
        table = _compare(sides, Bench(Path(name) / "files", scale), scale, options.only)
    body = f"## Metadata engines\n\n{describe_machine()}\n\n{METHOD}\n\n{table}"
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "engines", body))
    print(body)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engines", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small counts and one round")
    parser.add_argument("--rounds", type=int, help="measured rounds (3; with --quick 1)")
    parser.add_argument("--only", default="", help="a part of the names of the scenarios to run")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    return parser.parse_args(arguments)


def _make_sides(home: Path, running: ExitStack) -> list[Side]:
    """SQLite, PostgreSQL, and PostgreSQL below two gateways; each with a database of its own."""
    sides = [frostbyte(home / "sqlite", COPIES, ["--workers", "1"])]
    sides[0].name, sides[0].fsync = "SQLite", SYNCED
    for name in ("PostgreSQL", "PostgreSQL, two gateways"):
        database = PostgresServer(fsync=True, settings=DATABASE_SETTINGS)
        running.callback(database.stop)
        place = home / f"postgresql-{len(sides)}"
        place.mkdir()
        config = place / "config.json"
        config.write_text(json.dumps({"metadata": {"engine": "postgresql", "dsn": database.dsn()}}))
        side = frostbyte(place, COPIES, ["--workers", "1", "--config", str(config)])
        side.name, side.fsync, side.version = name, f"{SYNCED}; no standby", database.version
        side.roots.append(database.pid)
        sides.append(side)
    twin = further_gateway(sides[-1], place)
    sides[-1].twins.append(twin)
    sides[-1].in_flight = twin.in_flight = IN_FLIGHT // 2
    return sides


def _compare(sides: list[Side], bench: Bench, scale: Scale, only: str) -> str:
    """Start all sides, run every scenario in alternating rounds, stop them, and render the table."""
    rows: list[Row] = []
    try:
        for side in sides:
            side.start()
            make_bucket(side)
        idle = idle_memory_row(sides)
        for scenario in _choose_scenarios(bench, only):
            rows.append(run_scenario(scenario, sides, scale.rounds))
            say(rows[-1])
        rows += [idle, memory_row("Resident memory after the load", sides)]
    finally:
        for side in sides:
            side.stop()
    notes = [f"{side.name} {side.version}: {side.fsync}" for side in sides]
    notes.append(f"{scale.rounds} rounds; PUTs and GETs of {scale.round_s} s each")
    return render_table(Table("One gateway and two", [side.name for side in sides], notes, rows))


def _choose_scenarios(bench: Bench, wanted: str) -> list[Scenario]:
    small: list[Scenario] = []
    for size in SIZES:
        small += [SmallPut(bench, size), SmallGet(bench, size)]
    return [scenario for scenario in [*small, Listing(bench)] if wanted.lower() in scenario.name.lower()]


if __name__ == "__main__":
    raise SystemExit(main())
