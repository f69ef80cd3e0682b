"""Running wrk, s5cmd and curl against a side, with the processor time that the generator itself used."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import read_cpu_s
from tests.bench.sides import Side
from tests.bench.wrk_output import WrkResult, parse_wrk_output
from tests.clients.programs import find_program, run_program

LOAD_DEADLINE_S = 600
SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass
class Cost:
    """Wall time of a piece of work, and what share of one processor the generator and the side used meanwhile."""

    wall_s: float = 0.0
    generator_share: float = 0.0
    side_share: float = 0.0


@contextmanager
def measured(side: Side) -> Iterator[Cost]:
    """Measure the block: the generator is this process and the children that it ends inside the block."""
    cost = Cost()
    pids = side.pids()
    side_before, own_before, began = read_cpu_s(pids), _own_cpu_s(), time.perf_counter()
    yield cost
    cost.wall_s = time.perf_counter() - began
    cost.generator_share = (_own_cpu_s() - own_before) / cost.wall_s
    cost.side_share = (read_cpu_s(pids) - side_before) / cost.wall_s


def run_wrk(side: Side, method: str, paths: Path, body: Path | None, seconds: int) -> WrkResult:
    """Presigned paths in their order with `side.in_flight` at once for `seconds`, or until they are used up."""
    command = [_need("wrk"), "--threads", "1", "--connections", str(side.in_flight), "--duration", f"{seconds}s"]
    command += ["--timeout", "30s", "--script", str(SCRIPT), side.endpoint.url, "--", method, str(paths)]
    command += [str(body)] if body else []
    return parse_wrk_output(run_program(command, timeout_s=seconds + 60).stdout.decode())


def run_to_null(side: Side, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Run a program through a shell that discards its output, so that nothing of it passes through this process."""
    command = ["sh", "-c", 'exec "$@" > /dev/null', "sh", *words]
    run_program(command, environment or side.endpoint.environment(), timeout_s=LOAD_DEADLINE_S)


def s5cmd_words(side: Side, *words: str) -> list[str]:
    """The command line of s5cmd against this side."""
    return [_need("s5cmd"), "--endpoint-url", side.endpoint.url, *words]


def curl_words(side: Side, path: str, *words: str) -> list[str]:
    """The command line of curl for a presigned path."""
    return [_need("curl"), "--silent", "--show-error", "--fail", *words, f"{side.endpoint.url}{path}"]


def parallel_curl_words(side: Side, path: str, spans: Sequence[tuple[int, int]], config: Path) -> list[str]:
    """The command line of one curl for ranges (first and last byte) of a presigned path, all at once and discarded;
    what is asked for goes into the file `config`."""
    asked = (
        f'url = "{side.endpoint.url}{path}"\nrange = "{first}-{last}"\noutput = "/dev/null"\n' for first, last in spans
    )
    config.write_text("next\n".join(f"{request}silent\nshow-error\nfail\n" for request in asked))
    return [
        _need("curl"),
        "--parallel",
        "--parallel-immediate",
        "--parallel-max",
        str(len(spans)),
        "--config",
        str(config),
    ]


def aws_words(side: Side, *words: str) -> list[str]:
    """The command line of aws-cli against this side."""
    return [_need("aws"), "--endpoint-url", side.endpoint.url, *words]


def missing_programs() -> list[str]:
    """The load generators that are not installed."""
    return [name for name in ("wrk", "s5cmd", "curl", "aws") if find_program(name) is None]


def _need(name: str) -> str:
    program = find_program(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed")
    return program


def _own_cpu_s() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime
