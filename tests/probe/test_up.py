"""`frostbyte up` as operators use it: from any directory, over several disks, long paths, stopped at any moment."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from tests.clients.server import frostbyte_program
from tests.probe.load import FAILURES, body_of
from tests.probe.roles import FROSTBYTE, load_json, run_command, running_role, succeed, wait_for_nodes
from tests.probe.server import READY_TIMEOUT_S, REGION, ROLE_MODULES, Server, free_port, module_of
from tests.storage.chunks.chunk_files import list_chunks

STOP_TIMEOUT_S = 40.0
START_MOMENTS_S = (0.0, 0.4, 1.5)
BIG_BYTES = 300_000
SEVERAL_BYTES = 64 << 10
"""more than is kept with the records"""


def client_at(port: int, access_key_id: str, secret_access_key: str) -> Any:
    """A boto3 client that tries once."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=access_key_id,
        aws_secret_access_key=secret_access_key,
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


def commands_of_roles(pid: int) -> list[list[str]]:
    """The arguments of a process's children that are a role."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            is_child = entry.name.isdigit() and (entry / "stat").read_text().rsplit(")", 1)[1].split()[1] == str(pid)
            if is_child and module_of(int(entry.name)) in ROLE_MODULES.values():
                found.append((entry / "cmdline").read_text().rstrip("\0").split("\0"))
    return found


def processes_that_mention(path: Path) -> list[str]:
    """The arguments of every process that was given something below the path."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(path) in (entry / "cmdline").read_text():
                found.append((entry / "cmdline").read_text())
    return found


def test_a_relative_directory_from_elsewhere(tmp_path: Path) -> None:
    """Called `storage` like a package of ours, with the console script: children get absolute paths and import the
    program, not the data. The operator's commands work from another directory and say honestly what is survived."""
    port = free_port()
    data = tmp_path / "storage"
    arguments = ("up", "--data", "storage", "--listen", f"127.0.0.1:{port}", "--workers", "1")
    program = (frostbyte_program(),)
    with running_role(
        tmp_path / "log",
        "Frostbyte is ready",
        *arguments,
        program=program,
        directory=tmp_path,
        with_credentials=False,
    ) as process:
        children = commands_of_roles(process.pid)
        assert len(children) == 6
        for command in children:
            paths = [word for flag, word in itertools.pairwise(command) if flag in ("--data", "--config", "--socket")]
            assert paths
            assert all(path.startswith("/") for path in paths), command
        for file in (data / "run").glob("*.json"):
            assert '"storage' not in file.read_text()

        wait_for_nodes(data, 3)
        status = load_json("status", "--data", data)
        assert status["survives"] == {"zones": 0, "hosts": 0, "disks": 0, "nodes": 1}
        assert any("share one failure domain" in warning for warning in status["warnings"])
        assert [node["state"] for node in status["nodes"]] == ["up"] * 3
        text = succeed("status", "--data", data)
        assert all(sentence in text for sentence in (*status["warnings"], status["summary"], "durability fsync"))

        credentials = json.loads((data / "credentials.json").read_text())
        client = client_at(port, **credentials)
        client.create_bucket(Bucket="pictures")
        made = load_json("user", "create", "guest", "--data", data)
        client_at(port, made["access_key_id"], made["secret_access_key"]).create_bucket(Bucket="guests")
        running = load_json("bucket", "list", "--data", data)
        assert [(bucket["name"], bucket["owner"]) for bucket in running] == [("guests", "guest"), ("pictures", "root")]

        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(STOP_TIMEOUT_S) == 0
    stopped = run_command("status", "--data", data)
    assert (stopped.returncode, stopped.stderr) == (1, f"frostbyte: no server runs on {data}\n")
    assert load_json("bucket", "list", "--data", data) == running


def test_several_directories_with_long_names(tmp_path: Path) -> None:
    """One datanode in each, and sockets somewhere short, as a socket's path has a bound."""
    home = tmp_path / ("long-" * 20) / ("path-" * 10)
    disks = [home / "data", tmp_path / "second", tmp_path / "third"]
    flags = [text for disk in disks[1:] for text in ("--data", str(disk))]
    server = Server(home, None, "--workers", "1", *flags)  # shares are exact within one write session
    server.start()
    try:
        client = server.client()
        client.create_bucket(Bucket="wide")
        wait_for_nodes(disks[0], len(disks))
        for number in range(6):
            name = f"object-{number}"
            client.put_object(Bucket="wide", Key=name, Body=body_of(name, BIG_BYTES))
        for number in range(6):
            name = f"object-{number}"
            assert client.get_object(Bucket="wide", Key=name)["Body"].read() == body_of(name, BIG_BYTES)
        assert [len(list_chunks(disk / "datanode")) for disk in disks] == [4, 4, 4]
        shown = {
            arguments for pid in server.pids("datanode") for arguments in [Path(f"/proc/{pid}/cmdline").read_text()]
        }
        assert all(any(str(disk / "datanode") in arguments for arguments in shown) for disk in disks)
        nodes = load_json("node", "list", "--data", disks[0])
        assert all(len(node["address"]) < 110 for node in nodes)
        assert "user" in succeed("user", "create", "user", "--data", disks[0])
    finally:
        assert server.stop() == 0
    again = run_command("up", "--data", disks[0], "--data", disks[1], "--datanodes", "2")
    assert again.returncode == 1


@pytest.mark.parametrize("delay_s", START_MOMENTS_S)
def test_sigterm_during_the_start(tmp_path: Path, delay_s: float) -> None:
    """At whatever moment: it ends by itself with nothing left running, and the next start is whole."""
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    command = [*FROSTBYTE, "up", "--data", str(tmp_path / "data"), *listen]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        end_s = time.monotonic() + STOP_TIMEOUT_S
        while not (tmp_path / "data" / "run" / "lock").exists():
            assert time.monotonic() < end_s
            time.sleep(0.005)
        time.sleep(delay_s)  # any moment will do; none is waited for
        process.terminate()
        assert process.wait(STOP_TIMEOUT_S) == 0, log.read_text()
    assert processes_that_mention(tmp_path) == []
    assert "Traceback" not in log.read_text()


def test_a_role_that_cannot_start_ends_everything(tmp_path: Path) -> None:
    """Five deaths at once are enough: one line, status 1, nothing left."""
    data = tmp_path / "data"
    succeed("init", "--data", data)
    (data / "metadata" / "metadata.db").write_bytes(b"this is no database" * 1000)
    for stale in data.glob("metadata/metadata.db-*"):
        stale.unlink()
    done = run_command("up", "--data", data, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("frostbyte: ")

    other = tmp_path / "other"
    succeed("init", "--data", other)
    (other / "datanode-2" / "chunks").write_text("a file where a directory belongs")
    done = run_command("up", "--data", other, "--listen", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "datanode-2 cannot start" in done.stderr.splitlines()[-1]
    assert processes_that_mention(tmp_path) == []


def put_each(urls: list[str]) -> list[int]:
    """The statuses of PUTs of SEVERAL_BYTES, many at a time, each over a connection of its own, so that every worker
    gets some."""

    def put(url: str) -> int:
        target = urlsplit(url)
        connection = HTTPConnection(target.netloc, timeout=STOP_TIMEOUT_S)
        try:
            connection.request("PUT", f"{target.path}?{target.query}", bytes(SEVERAL_BYTES))
            return connection.getresponse().status
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(put, urls))


def test_once_a_put_was_taken_every_put_is(tmp_path: Path) -> None:
    """From the first moment of a first start, whichever worker gets it; the same when everything was started again, and
    while a master that was killed comes back."""
    server = Server(tmp_path / "frost", None, "--workers", "3")
    client = server.client(signature_version="s3v4")
    keys = [f"object-{number}" for number in range(200)]
    urls = [client.generate_presigned_url("put_object", {"Bucket": "first", "Key": key}) for key in keys]
    server.start(wait=False)
    try:
        end_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            with suppress(*FAILURES):
                client.create_bucket(Bucket="first")
                client.put_object(Bucket="first", Key="small", Body=b"needs no datanode")
                break
            assert time.monotonic() < end_s, server.log.read_text()
        assert set(put_each(urls)) == {200}
        assert server.ready()
        server.kill("master")
        assert set(put_each(urls)) == {200}
        assert server.stop() == 0
        server.start()
        assert set(put_each(urls)) == {200}
    finally:
        server.stop()


def test_keys_of_a_running_server(tmp_path: Path) -> None:
    """Named keys are made and rotated beside it; after a new master key it reads and writes on, in old buckets and in
    new ones, and so it does after a restart."""
    server = Server(tmp_path / "frost", None, "--workers", "2")
    server.start()
    try:
        client = server.client()
        data = server.data
        for name in ("used", "untouched"):
            client.create_bucket(Bucket=name)
        client.put_object(Bucket="used", Key="small", Body=b"before")
        client.put_object(Bucket="used", Key="large", Body=body_of("large", BIG_BYTES))
        assert succeed("key", "create", "payroll", "--data", data) == "named-payroll\n"
        assert "version 2" in succeed("key", "rotate", "payroll", "--data", data)
        before = load_json("key", "list", "--data", data)
        masters = {master for entry in before for master in entry["master_key_ids"]}
        old_key = (data / "master.key").read_bytes()

        succeed("key", "rotate", "--master", "--data", data)

        assert (data / "master.key").read_bytes() != old_key
        after = load_json("key", "list", "--data", data)
        assert {entry["key_id"]: entry["version"] for entry in after} == {
            entry["key_id"]: entry["version"] for entry in before
        }
        assert not masters & {master for entry in after for master in entry["master_key_ids"]}
        client.create_bucket(Bucket="new")
        for bucket, _ in itertools.product(("used", "untouched", "new"), range(4)):  # more than one worker
            fresh = server.client()
            fresh.put_object(Bucket=bucket, Key="large", Body=body_of("large", BIG_BYTES))
            assert fresh.get_object(Bucket=bucket, Key="large")["Body"].read() == body_of("large", BIG_BYTES)
        assert client.get_object(Bucket="used", Key="small")["Body"].read() == b"before"
        made = load_json("user", "create", "late", "--data", data)
        client_at(server.port, made["access_key_id"], made["secret_access_key"]).list_buckets()

        assert server.stop() == 0
        server.start()
        assert server.client().get_object(Bucket="used", Key="small")["Body"].read() == b"before"
        assert server.client().get_object(Bucket="untouched", Key="large")["Body"].read() == body_of("large", BIG_BYTES)
    finally:
        server.stop()
    assert succeed("key", "create", "when-stopped", "--data", data) == "named-when-stopped\n"


def test_a_start_right_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    """Nothing of the one before holds the port, the directory or the records."""
    server = Server(tmp_path / "frost", None, "--workers", "1")
    server.start()
    try:
        client = server.client()
        client.create_bucket(Bucket="kept")
        client.put_object(Bucket="kept", Key="object", Body=b"before")
        server.kill_supervisor()
        server.start()
        assert server.client().get_object(Bucket="kept", Key="object")["Body"].read() == b"before"
    finally:
        server.stop()
