"""`python -m tests.bench.repair`: five datanodes hold 10 GiB, one is lost for good: how long until everything is at
full redundancy again, and what the load's requests take meanwhile. Written into BENCHMARKS.md.

It needs a fifth more room than the datanodes hold, in --directory, and leaves nothing there. Every wait has its end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cluster.maintenance.survey_status import SurveyStatus
from cluster.registry.config import MasterConfig, load_config
from s3gw.cli.master import open_master
from storage.model import NodeState
from tests.bench.comparison import describe_machine
from tests.bench.report import format_number, replace_section
from tests.clients.material import GIB
from tests.probe.machines import Machines

BUCKET = "repair"
DATANODES = 5
LOST = 1
OBJECT_BYTES = 8 << 20
LOADED_BYTES = 64 << 10
FILLERS = 4
LOADERS = 4
CALM_S = 20.0
UP_WAIT_S = 60.0
FILL_WAIT_S = 400.0
REPAIR_WAIT_S = 240.0
POLL_S = 0.25
TIMING = {"timing": {"suspect_after_s": 2.0, "dead_after_s": 5.0}}


class Latencies(NamedTuple):
    """Of the load's requests in one stretch of time, in milliseconds."""

    name: str
    count: int
    refused: int
    p50_ms: float
    p99_ms: float
    worst_ms: float


class Load:
    """A few clients that put and get 64 KiB, one request after the other, and note how long each took."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._took_ms: list[float] = []
        self._refused = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(LOADERS)]

    def start(self) -> None:
        """All of them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait for their last requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def take(self, name: str) -> Latencies:
        """What was noted since the last time."""
        taken, self._took_ms = sorted(self._took_ms), []
        refused, self._refused = self._refused, 0
        if not taken:
            return Latencies(name, 0, refused, 0.0, 0.0, 0.0)
        return Latencies(name, len(taken), refused, taken[len(taken) // 2], taken[int(len(taken) * 0.99)], taken[-1])

    def _work(self, number: int) -> None:
        body = os.urandom(LOADED_BYTES)
        turn = 0
        while not self._stop.is_set():
            key, turn = f"load/{number}/{turn % 100}", turn + 1
            for request in (
                lambda key=key: self._client.put_object(Bucket=BUCKET, Key=key, Body=body),
                lambda key=key: self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read(),
            ):
                began_s = time.perf_counter()
                try:
                    request()
                except Exception:  # noqa: BLE001 - whatever the client library raises is a request without an answer
                    self._refused += 1
                self._took_ms.append((time.perf_counter() - began_s) * 1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.repair", description=__doc__)
    parser.add_argument("--gibibytes", type=float, default=10, help="of sealed bytes on all nodes together")
    parser.add_argument("--redundancy", default="replica:2")
    parser.add_argument("--directory", help="where the data go (a temporary directory)")
    parser.add_argument("--output", default="BENCHMARKS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="frostbyte-repair-", dir=options.directory) as name:
        with running_machines(Path(name), options.redundancy) as machines:
            body = measure(machines, int(options.gibibytes * GIB), options.redundancy)
    output = Path(options.output)
    output.write_text(
        replace_section(output.read_text() if output.exists() else "", f"repair {options.redundancy}", body)
    )
    print(body)
    return 0


@contextmanager
def running_machines(root: Path, redundancy: str) -> Iterator[Machines]:
    """Records, master and five datanodes, each a process of its own that speaks TLS."""
    with ExitStack() as running:
        machines = Machines(root, running, settings={"redundancy": redundancy})
        machines.change_master(TIMING)
        machines.start_records_and_master()
        for number in range(1, DATANODES + 1):
            machines.start_datanode(number)
        machines.wait_until_up(DATANODES)
        yield machines


def measure(machines: Machines, stored_bytes: int, redundancy: str) -> str:
    """Fill, load, lose a node, wait. → the section."""
    client = machines.start_gateway()
    client.create_bucket(Bucket=BUCKET)
    fill(client, machines, stored_bytes)
    held = machines.stored_bytes(LOST)
    load = Load(client)
    load.start()
    time.sleep(CALM_S)
    stretches = [load.take("before")]
    config = load_config(machines.master_file)
    began_s = time.monotonic()
    machines.datanodes[LOST].kill()
    wait_for(lambda: look(config)[0] is NodeState.DEAD, UP_WAIT_S, "noticing")
    noticed_s, noticed_ms = time.monotonic() - began_s, round(time.time() * 1000)
    stretches.append(load.take("until the node counts as dead"))
    wait_for(lambda: is_whole(look(config)[1], noticed_ms), REPAIR_WAIT_S, "repairing")
    whole_s = time.monotonic() - began_s
    stretches.append(load.take("while it is rebuilt"))
    time.sleep(CALM_S)
    stretches.append(load.take("after"))
    load.stop()
    return render(redundancy, stored_bytes, held, noticed_s, whole_s, stretches)


def fill(client: Any, machines: Machines, stored_bytes: int) -> None:
    """Objects of one chunk until the nodes hold so much together."""
    numbers = iter(range(1_000_000))
    body = os.urandom(OBJECT_BYTES)

    def stored() -> int:
        return sum(map(machines.stored_bytes, machines.datanodes))

    def put_some(count: int) -> None:
        for _ in range(count):
            client.put_object(Bucket=BUCKET, Key=f"filling/{next(numbers):06}", Body=body)

    end_s = time.monotonic() + FILL_WAIT_S
    while (left := stored_bytes - stored()) > 0:
        assert time.monotonic() < end_s, f"{left} bytes could not be stored in {FILL_WAIT_S} s"
        each = max(1, left // OBJECT_BYTES // 3 // FILLERS)
        threads = [threading.Thread(target=put_some, args=(each,)) for _ in range(FILLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def wait_for(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll seldom enough to be no load."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"{what} took more than {timeout_s} s"
        time.sleep(POLL_S)


def look(config: MasterConfig) -> tuple[NodeState, SurveyStatus]:
    """The state of the lost node, and the health of the data, as the master sees them."""

    async def ask() -> tuple[NodeState, SurveyStatus]:
        async with open_master(config, None) as master:
            nodes = (await master.fetch_map()).nodes
            return next(node.state for node in nodes if node.number == LOST), await master.fetch_survey()

    return asyncio.run(ask())


def is_whole(survey: SurveyStatus, noticed_ms: int) -> bool:
    """Whether a whole walk that began after the loss was noticed (by the clock of this machine) found every chunk at
    full redundancy: the last one before it says nothing, and neither does one that was under way."""
    lost = next((node for node in survey.nodes if node.number == LOST), None)
    if lost is None or lost.named_pieces or survey.queued or survey.walk_started_ms < noticed_ms:
        return False
    return 0 < survey.chunks == survey.healthy and survey.repaired_pieces > 0


def render(
    redundancy: str, stored_bytes: int, held: int, noticed_s: float, whole_s: float, stretches: Sequence[Latencies]
) -> str:
    """The section as Markdown."""
    pace = held / max(0.001, whole_s - noticed_s) / (1 << 20)
    lines = [
        f"## One of five nodes lost, {redundancy}",
        "",
        describe_machine(),
        "",
        f"Five datanodes, each a process that speaks TLS and syncs, hold {stored_bytes / GIB:g} GiB together on one"
        f" disk; one is killed and stays away. It held {format_number(held / GIB)} GiB. Counted as dead after"
        f" {noticed_s:.1f} s; everything at full redundancy {whole_s:.1f} s after the kill: {format_number(pace)} MiB/s"
        f" rebuilt. {LOADERS} clients put and get 64 KiB meanwhile, one request after the other; their requests took:",
        "",
        "| | requests | without success | p50, ms | p99, ms | longest, ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for it in stretches:
        figures = f"{it.p50_ms:.1f} | {it.p99_ms:.1f} | {it.worst_ms:.0f}"
        lines.append(f"| {it.name} | {it.count} | {it.refused} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
