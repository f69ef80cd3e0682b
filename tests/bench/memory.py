"""`python -m tests.bench.memory`: what the gateway workers hold while 5 GiB go up and down; into BENCHMARKS.md."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.comparison import SETTLE_S
from tests.bench.load import curl_words, run_to_null, s5cmd_words
from tests.bench.processes import PeakMemory, read_arguments, read_pss_mib
from tests.bench.report import format_number, replace_section
from tests.bench.requests import SignedConnection, object_path, presign
from tests.bench.sides import Side, frostbyte
from tests.clients.material import GIB

BUCKET = "memory"
GATEWAY_MODULE = "s3gw"
ALLOWED_MIB = 300
"""The aim: the gateway workers together stay within this above idle."""


class Transfer(NamedTuple):
    """One transfer: how long, and the peaks of the gateway workers and of all processes."""

    name: str
    wall_s: float
    gateway_peak_mib: float
    total_peak_mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section. Returns 1 when the aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--gibibytes", type=float, default=5)
    parser.add_argument("--copies", type=int, default=2)
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    size = int(options.gibibytes * GIB)
    with tempfile.TemporaryDirectory(prefix="frostbyte-memory-", dir=options.directory) as name:
        side = frostbyte(Path(name) / "frostbyte", options.copies)
        source = Path(name) / "source"
        with source.open("wb") as file:
            file.truncate(size)  # a sparse file: the sealed bytes are as random as any
        side.start()
        try:
            time.sleep(SETTLE_S)
            idle_gateway, idle_total = read_pss_mib(gateway_pids(side)), read_pss_mib(side.pids())
            transfers = measure(side, source)
        finally:
            side.stop()
    body = render(size / GIB, idle_gateway, idle_total, transfers)
    output = Path(options.output)
    output.write_text(replace_section(output.read_text() if output.exists() else "", "memory", body))
    print(body)
    return 0 if max(transfer.gateway_peak_mib for transfer in transfers) <= idle_gateway + ALLOWED_MIB else 1


def gateway_pids(side: Side) -> list[int]:
    """The gateway workers among a side's processes: `python -m s3gw …`."""
    return [pid for pid in side.pids() if _runs_module(read_arguments(pid), GATEWAY_MODULE)]


def measure(side: Side, source: Path) -> list[Transfer]:
    """Parallel parts up, parallel ranges down, then one plain stream each way."""
    connection = SignedConnection(side.endpoint)
    connection.send("PUT", f"/{BUCKET}")
    put, get = (presign(side.endpoint, method, object_path(BUCKET, "stream")) for method in ("PUT", "GET"))
    steps: list[tuple[str, list[str]]] = [
        ("up by s5cmd, parallel parts", s5cmd_words(side, "cp", str(source), f"s3://{BUCKET}/parts")),
        ("down by s5cmd, parallel ranges", s5cmd_words(side, "cat", f"s3://{BUCKET}/parts")),
    ]
    if source.stat().st_size <= 5 * GIB:  # the most that one PUT may carry
        steps.append(("up by curl, one PUT", curl_words(side, put, "--upload-file", str(source))))
        steps.append(("down by curl, one GET", curl_words(side, get)))
    transfers = []
    for name, words in steps:
        transfers.append(_watch(name, side, lambda words=words: run_to_null(side, words)))  # type: ignore[misc]
        if name.startswith("down"):
            connection.send("DELETE", object_path(BUCKET, "parts" if "s5cmd" in name else "stream"))
    connection.close()
    return transfers


def render(gibibytes: float, idle_gateway: float, idle_total: float, transfers: Sequence[Transfer]) -> str:
    """The section as Markdown."""
    lines = [
        f"## Memory during transfers of {gibibytes:g} GiB",
        "",
        f"PSS of the gateway workers together and of all processes; idle: {format_number(idle_gateway)} MiB and "
        f"{format_number(idle_total)} MiB. Aim: the workers stay within {ALLOWED_MIB} MiB above idle.",
        "",
        "| | time, s | workers' peak, MiB | above idle, MiB | all processes' peak, MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for transfer in transfers:
        figures = (
            transfer.wall_s,
            transfer.gateway_peak_mib,
            transfer.gateway_peak_mib - idle_gateway,
            transfer.total_peak_mib,
        )
        lines.append(f"| {transfer.name} | {' | '.join(map(format_number, figures))} |")
    return "\n".join(lines) + "\n"


def _watch(name: str, side: Side, work: Callable[[], None]) -> Transfer:
    gateways, everything = gateway_pids(side), side.pids()
    began = time.monotonic()
    with PeakMemory(lambda: gateways) as gateway, PeakMemory(lambda: everything) as total:
        work()
    return Transfer(name, time.monotonic() - began, gateway.peak_mib, total.peak_mib)


def _runs_module(arguments: Sequence[str], module: str) -> bool:
    return any(flag == "-m" and name == module for flag, name in itertools.pairwise(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
