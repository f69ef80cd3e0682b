"""A bucket's redundancy is changed under load, with real processes that are killed meanwhile: what was acknowledged is
read back whole throughout, in the redundancy that was asked for, and nothing of what was before stays on any disk."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.probe.conftest import running_datanodes
from tests.probe.load import Writers, body_of
from tests.probe.roles import load_json, succeed, wait_for_nodes
from tests.probe.server import Server
from tests.probe.waiting import wait_until

BUCKET = "films"
DATANODES = 7
MIB = 1 << 20
SIZES = {"large": 12 * MIB + 5, "medium": 700_000, "small": 100_000, "inline": 900}
SETS = 3
LOAD_SIZES = (60_000, 400_000, 3 * MIB)
QUICK = {
    "lease_ttl_s": 3,
    "sweep_interval_s": 1,
    "survey_interval_s": 2,
    "surplus_age_s": 1,
    "rewrite_interval_s": 0.5,
}
WAIT_S = 90.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two copies of everything at first."""
    with running_datanodes(tmp_path / "frost", QUICK, DATANODES) as running:
        yield running


class Readers:
    """A thread that reads everything again and again; what it gets is right, or an error."""

    def __init__(self, client: Any, digests: dict[str, str]) -> None:
        self.read = 0
        self.refused = 0
        self.wrong: list[str] = []
        self._client = client
        self._digests = digests
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, digest in self._digests.items():
                try:
                    body = self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
                except (ClientError, BotoCoreError):
                    self.refused += 1
                    continue
                self.read += 1
                if hashlib.sha256(body).hexdigest() != digest:
                    self.wrong.append(key)


def progress(server: Server) -> Any:
    """Of laying the bucket out anew."""
    return load_json("bucket", "rewrite", BUCKET, "--data", server.data)


def wait_until_laid_out(server: Server) -> None:
    """All of it."""
    wait_until(lambda: progress(server)["left"] == 0, WAIT_S, "laying out the bucket")


def stored_bytes(server: Server) -> int:
    """That everything takes on the disks of the datanodes but what was set aside. (Segments have holes.)"""
    files = [file for file in server.data.glob("datanode-*/chunks/**/*") if file.is_file()]
    return sum(file.stat().st_blocks * 512 for file in files)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_under_load_with_kills(server: Server) -> None:
    """Copies → fragments while the master and a datanode are killed and others write; then back, stopped on the way."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    digests = {}
    for number in range(SETS):
        for name, size in SIZES.items():
            key = f"{name}-{number}"
            body = body_of(key, size)
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
            digests[key] = hashlib.sha256(body).hexdigest()
    with Readers(server.client(), digests) as readers, Writers(server, BUCKET, LOAD_SIZES, threads=2) as writers:
        writers.wait_for_acknowledged(5)
        succeed("bucket", "redundancy", BUCKET, "ec:4+2", "--data", server.data)
        wait_until(lambda: progress(server)["blobs"].get("ec:4+2", 0) > 2, WAIT_S, "having begun")
        server.kill("master")
        server.kill("datanode", 2)
        writers.wait_for_acknowledged(10)
    wait_for_nodes(server.data, DATANODES)
    wait_until_laid_out(server)
    assert set(progress(server)["blobs"]) == {"ec:4+2", "replica:3"}
    assert readers.read > 10
    assert not readers.wrong
    require_everything(client, digests, writers)
    total = sum(size for key, size in writers.acknowledged.items()) + SETS * sum(SIZES.values())
    wait_until(lambda: stored_bytes(server) < 1.7 * total, WAIT_S, "sweeping the copies of before")

    succeed("bucket", "redundancy", BUCKET, "replica:2", "--data", server.data)
    succeed("bucket", "rewrite", BUCKET, "--stop", "--data", server.data)
    client.put_object(Bucket=BUCKET, Key="later", Body=body_of("later", MIB))
    digests["later"] = hashlib.sha256(body_of("later", MIB)).hexdigest()
    stopped = progress(server)
    assert stopped["is_stopped"]
    assert stopped["left"] > 0
    succeed("bucket", "rewrite", BUCKET, "--resume", "--data", server.data)
    wait_until_laid_out(server)
    assert set(progress(server)["blobs"]) == {"replica:2"}
    require_everything(client, digests, writers)
    assert "Traceback" not in server.log.read_text()


def require_everything(client: Any, digests: dict[str, str], writers: Writers) -> None:
    """Whole, by SHA-256."""
    for key, digest in digests.items():
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == digest, key
    for key, size in writers.acknowledged.items():
        assert client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == body_of(key, size), key
