"""Ten thousand objects of one chunk on five live datanodes: each holds its share, and when one is lost for good the
others rebuild what it held, all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.programs import find_program, run_program
from tests.probe.load import body_of
from tests.probe.machines import Machines
from tests.probe.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.probe.waiting import wait_until

BUCKET = "shares"
DATANODES = 5
OBJECTS = 10_000
SIZE = 17_000
"""more than what is kept with the records"""
SAMPLE = 300
SHARE_RATIO_MAX = 1.1
REBUILD_WAIT_S = 300.0
MAINTENANCE = {"timing": {"suspect_after_s": 2.0, "dead_after_s": 4.0}}


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Records, master, and five datanodes that soon count as dead."""
    with ExitStack() as running:
        made = Machines(tmp_path, running)
        made.change_master(MAINTENANCE)
        made.start_records_and_master()
        for number in range(1, DATANODES + 1):
            made.start_datanode(number)
        made.wait_until_up(DATANODES)
        yield made


def put_all(machines: Machines, client: Any, directory: Path) -> None:
    """By a real client that is fast with many small files."""
    directory.mkdir()
    for number in range(OBJECTS):
        (directory / f"{number:05}").write_bytes(body_of(f"{number:05}", SIZE))
    program = find_program("s5cmd")
    assert program is not None, "s5cmd comes with the test dependencies"
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_REGION": "us-east-1",
    }
    endpoint = ("--endpoint-url", client.meta.endpoint_url)
    run_program([program, *endpoint, "cp", f"{directory}/", f"s3://{BUCKET}/"], environment, timeout_s=200)


def bytes_read(pid: int) -> int:
    """By a process's system calls (proc(5), rchar)."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_shares_and_a_parallel_rebuild(machines: Machines, tmp_path: Path) -> None:
    """Equal shares before and after; each survivor reads for the rebuild about as much as the others."""
    client = machines.start_gateway()
    client.create_bucket(Bucket=BUCKET)
    put_all(machines, client, tmp_path / "source")
    shares = [len(machines.chunks(number)) for number in range(1, DATANODES + 1)]
    print(f"pieces on each node: {shares}")
    assert sum(shares) == 2 * OBJECTS
    assert max(shares) / min(shares) <= SHARE_RATIO_MAX

    lost, *survivors = machines.datanodes.values()
    before = [bytes_read(process.pid) for process in survivors]
    lost.kill()
    lost.wait()

    def is_whole() -> bool:
        survey = machines.survey()
        return bool(survey["healthy"] == survey["chunks"] == OBJECTS and survey["repaired_pieces"] >= shares[0])

    took_s = wait_until(is_whole, REBUILD_WAIT_S, "rebuilding")
    read = [bytes_read(process.pid) - earlier for process, earlier in zip(survivors, before, strict=True)]
    held = [len(machines.chunks(number)) for number in range(2, DATANODES + 1)]
    print(f"rebuilt {shares[0]} pieces in {took_s:.1f} s; pieces {held}, bytes read by each survivor {read}")
    assert sum(held) == 2 * OBJECTS
    assert max(held) / min(held) <= SHARE_RATIO_MAX
    copied_bytes = shares[0] * SIZE
    assert min(read) >= copied_bytes / len(survivors) / 2, "a survivor took no part"
    for number in random.sample(range(OBJECTS), SAMPLE):
        name = f"{number:05}"
        assert client.get_object(Bucket=BUCKET, Key=name)["Body"].read() == body_of(name, SIZE)
