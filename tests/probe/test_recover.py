"""`frostbyte recover` after everything was killed and the disk of the metadata is gone: a new host, keys and datanodes.

Three data directories, a load of puts, overwrites, deletes, copies and multipart uploads, kill -9 of every process in
the middle of it; then only the datanodes' directories, the keyring and the master key are left.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.journal.status import JournalStatus, read_status
from tests.probe.chaos_load import BUCKET, ChaosClient
from tests.probe.conftest import FAST_SWEEP
from tests.probe.roles import load_json, run_command, succeed
from tests.probe.server import Server
from tests.probe.waiting import wait_until

SETTINGS = {**FAST_SWEEP, "metadata": {"journal": "replicated"}}
SIZES = (300, 5_000, 20_000, 200_000, 3_000_000)
CLIENTS = 3
WAIT_S = 60.0
JOIN_S = 60.0


class Disks:
    """Directories of datanodes, and what an operator keeps elsewhere."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.first = root / "first" / "data"
        self.others = [root / "disk-2", root / "disk-3"]
        self.keyring = root / "safe" / "keyring"
        self.master_key = root / "safe" / "master.key"

    @property
    def datanodes(self) -> list[Path]:
        return [directory / "datanode" for directory in (self.first, *self.others)]

    def start_first(self) -> Server:
        server = Server(self.root / "first", SETTINGS, *self._flags(self.others), "--workers", "2")
        server.start()
        return server

    def save_keys(self) -> None:
        """As an operator does at some time, and again when there are new buckets."""
        shutil.rmtree(self.root / "safe", ignore_errors=True)
        shutil.copytree(self.first / "keyring", self.keyring)
        shutil.copy2(self.first / "master.key", self.master_key)

    def lose_first_host(self) -> None:
        """All but its datanode."""
        for path in self.first.iterdir():
            if path.name == "datanode":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def recover(self, name: str, *datanodes: Path, **options: str) -> dict[str, Any]:
        """Onto a new host; what the command says."""
        flags = [flag for path in datanodes for flag in ("--datanode", path)]
        flags += [flag for option, value in options.items() for flag in (f"--{option}", value)]
        target = self.root / name / "data"
        report: dict[str, Any] = load_json(
            *("recover", "--data", target, *flags, "--keyring", self.keyring, "--master-key", self.master_key)
        )
        assert report["problems"] == []
        assert report["lost"] == ""
        return report

    def start_again(self, name: str, *directories: Path) -> Server:
        """Over recovered records, with the datanodes of these directories."""
        server = Server(self.root / name, SETTINGS, *self._flags(directories), "--workers", "2")
        server.start()
        return server

    @staticmethod
    def _flags(directories: list[Path] | tuple[Path, ...]) -> list[str]:
        return [flag for path in directories for flag in ("--data", str(path))]


class Load:
    """Clients that run until they are told, each with keys of its own and a ledger of what these may hold."""

    def __init__(self, server: Server, seed: int) -> None:
        self.clients = [ChaosClient(server, seed * 100 + number, SIZES) for number in range(CLIENTS)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=client.run, args=(self._stop,)) for client in self.clients]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int) -> None:
        """Until each client had this many answers, and one has a request under way."""
        wait_until(lambda: all(it.acknowledged >= count for it in self.clients), WAIT_S, "being answered")
        wait_until(lambda: any(it.in_flight for it in self.clients), WAIT_S, "a request in flight")

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a request hung"

    def check(self, server: Server) -> int:
        """Every key holds what it may hold. → acknowledged operations."""
        problems = []
        for client in self.clients:
            client._client = server.client()
            problems += client.violations
            problems += [it for key in client.possible if (it := client.check(key, lenient=False)) is not None]
        assert problems == []
        return sum(client.acknowledged for client in self.clients)


@contextmanager
def stopping() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


def is_well(server: Server) -> bool:
    """As people are told."""
    said = succeed("status", "--data", server.data)
    return "health: well" in said and "in a journal on 2 datanodes" in said


def wait_until_covered(server: Server) -> JournalStatus:
    """Until a recovery would reach everything."""

    def is_covered() -> bool:
        status = read_status(server.data / "metadata")
        return status is not None and status.is_covered and status.phase == "open"

    wait_until(is_covered, WAIT_S, "a snapshot of the records")
    status = read_status(server.data / "metadata")
    assert status is not None
    return status


def make_marks(server: Server) -> tuple[str, str]:
    """An upload that is open, one that was aborted, and a key that was deleted. → their upload ids."""
    client = server.client()
    open_id = client.create_multipart_upload(Bucket=BUCKET, Key="open")["UploadId"]
    client.upload_part(Bucket=BUCKET, Key="open", UploadId=open_id, PartNumber=1, Body=b"part" * 2_000_000)
    aborted_id = client.create_multipart_upload(Bucket=BUCKET, Key="aborted")["UploadId"]
    client.upload_part(Bucket=BUCKET, Key="aborted", UploadId=aborted_id, PartNumber=1, Body=b"x")
    client.abort_multipart_upload(Bucket=BUCKET, Key="aborted", UploadId=aborted_id)
    client.put_object(Bucket=BUCKET, Key="deleted", Body=b"gone" * 100_000)
    client.delete_object(Bucket=BUCKET, Key="deleted")
    return open_id, aborted_id


def check_marks(server: Server, open_id: str, aborted_id: str) -> None:
    """The open upload can be completed, the others are as they were."""
    client = server.client()
    uploads = {it["UploadId"] for it in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())}
    assert open_id in uploads
    assert aborted_id not in uploads
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=BUCKET, Key="deleted")
    parts = client.list_parts(Bucket=BUCKET, Key="open", UploadId=open_id)["Parts"]
    client.complete_multipart_upload(
        Bucket=BUCKET,
        Key="open",
        UploadId=open_id,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": parts[0]["ETag"]}]},
    )
    assert client.get_object(Bucket=BUCKET, Key="open")["Body"].read() == b"part" * 2_000_000


@pytest.mark.timeout(300)
def test_everything_acknowledged_is_on_a_new_host(tmp_path: Path) -> None:
    """From the datanodes' directories, the keyring and the master key alone."""
    disks = Disks(tmp_path)
    with stopping() as servers:
        server = disks.start_first()
        servers.callback(server.stop)
        server.client().create_bucket(Bucket=BUCKET)
        disks.save_keys()
        wait_until_covered(server)
        open_id, aborted_id = make_marks(server)
        load = Load(server, 1)
        load.wait_for(15)
        server.kill_everything()
        load.end()
        disks.lose_first_host()
        said = run_command("recover", "--data", tmp_path / "x", *("--datanode", disks.datanodes[0]), "--dry-run")
        assert "there is no keyring" in said.stderr
        report = disks.recover("second", *disks.datanodes)
        assert report["buckets"] == 1
        assert report["unreadable"] == []
        assert report["next_steps"][0].startswith("next: frostbyte up --data")
        again = disks.start_again("second", *[path.parent for path in disks.datanodes])
        servers.callback(again.stop)
        assert load.check(again) > 40
        check_marks(again, open_id, aborted_id)
        credentials = json.loads((again.data / "credentials.json").read_text())
        assert credentials["access_key_id"] == "AKIAPROBEPROBEPROBE1"
        # The first walk waits for the nodes, and comes a moment after the journal is open.
        wait_until(lambda: is_well(again), WAIT_S, "a journal on two datanodes, and all chunks whole")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_datanode_may_be_lost_as_well_and_it_happens_again(tmp_path: Path) -> None:
    """The recovered store goes on in the same journal; the next time one of its three datanodes is gone too."""
    disks = Disks(tmp_path)
    with stopping() as servers:
        server = disks.start_first()
        servers.callback(server.stop)
        server.client().create_bucket(Bucket=BUCKET)
        disks.save_keys()
        wait_until_covered(server)
        first = Load(server, 2)
        first.wait_for(10)
        server.kill_everything()
        first.end()
        disks.lose_first_host()
        disks.recover("second", *disks.datanodes)
        shutil.rmtree(tmp_path / "second" / "data" / "datanode", ignore_errors=True)
        again = disks.start_again("second", *[path.parent for path in disks.datanodes])
        servers.callback(again.stop)
        wait_until_covered(again)
        second = Load(again, 3)
        second.wait_for(10)
        again.kill_everything()
        second.end()
        shutil.rmtree(again.data / "metadata")
        lost = disks.datanodes[1]
        shutil.rmtree(lost)
        left = [path for path in (again.data / "datanode", *disks.datanodes) if path != lost]
        report = disks.recover("third", *left)
        assert len(report["unseen_nodes"]) == 1
        last = disks.start_again("third", *[path.parent for path in left])
        servers.callback(last.stop)
        assert first.check(last) + second.check(last) > 40
