"""Every role from its own configuration file, as on several machines: https between all of them, each datanode with its
own key file, one of them joining later."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.probe.load import body_of
from tests.probe.machines import Machines, client_at
from tests.probe.roles import load_json, run_command, running_role, succeed
from tests.probe.server import ACCESS_KEY_ID, free_port
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import list_chunks
from tests.tls import make_internal_tls

SIZES = (300, 200_000, 9 << 20)
WAIT_S = 60.0


def put_all(client: Any, prefix: str) -> None:
    """One object of each size."""
    for size in SIZES:
        client.put_object(Bucket="roles", Key=f"{prefix}-{size}", Body=body_of(f"{prefix}-{size}", size))


def verify_all(client: Any, *prefixes: str) -> None:
    """Every one reads back whole."""
    for prefix in prefixes:
        for size in SIZES:
            name = f"{prefix}-{size}"
            assert client.get_object(Bucket="roles", Key=name)["Body"].read() == body_of(name, size)


def test_roles_alone_over_https(tmp_path: Path) -> None:
    """Objects go to the datanodes that are there; a third joins and is used; one is lost and everything still reads;
    status, drain and resume work through the master's file; SIGTERM ends a datanode in order."""
    with ExitStack() as running:
        machines = Machines(tmp_path, running)
        assert ACCESS_KEY_ID in machines.said
        machines.start_records_and_master()
        machines.start_datanode(1)
        second = machines.start_datanode(2)
        client = machines.start_gateway()
        client.create_bucket(Bucket="roles")
        put_all(client, "early")
        assert len(machines.chunks(1)) == len(machines.chunks(2)) == 3  # 200,000 bytes, and 9 MiB in two chunks

        machines.start_datanode(3)
        wait_until(lambda: [node["state"] for node in machines.nodes()] == ["up"] * 3, WAIT_S, "all nodes up")
        wait_until(lambda: put_all(client, "late") or bool(machines.chunks(3)), WAIT_S, "a chunk on the late node")
        verify_all(client, "early", "late")

        def has_both_writers() -> bool:
            """One worker makes the gateway ready; the other may still be starting."""
            return len(load_json("status", "--master", machines.master_file)["metadata"]["writers"]) == 2

        wait_until(has_both_writers, WAIT_S, "both workers writing")

        def jobs_succeed() -> bool:
            """A job that met what was not there yet is tried again."""
            jobs = load_json("status", "--master", machines.master_file)["jobs"]
            return {job["last_error"] for job in jobs} == {""}

        wait_until(jobs_succeed, WAIT_S, "a run of every job that succeeds")
        status = load_json("status", "--master", machines.master_file)
        assert (status["durability"], status["redundancy"], len(status["nodes"])) == ("fsync", "replica:2", 3)
        assert status["survives"]["nodes"] == status["survives"]["zones"] == 1

        second.send_signal(signal.SIGTERM)
        assert second.wait(WAIT_S) == 0
        verify_all(client, "early", "late")
        put_all(client, "without the second")
        verify_all(client, "without the second")

        # What was put just now is on the first and the third, and there is no other place: this drain cannot end.
        third = next(node for node in machines.nodes() if node["failure_domain"].startswith("zone-3/"))
        assert "is draining" in succeed("node", "drain", third["number"], "--master", machines.master_file)
        succeed("node", "resume", third["node_id"][:12], "--master", machines.master_file)
        wait_until(lambda: machines.nodes()[third["number"] - 1]["state"] == "up", WAIT_S, "the third node up")
        verify_all(client, "late", "without the second")


def test_a_plain_address_that_others_could_reach_is_refused(tmp_path: Path) -> None:
    """By the datanode and by the master, in one line, before anything is served."""
    with ExitStack() as running:
        machines = Machines(tmp_path, running)
        document = load_json("node", "add", "--data", machines.main, "--listen", "https://127.0.0.1:9")
        config = tmp_path / "plain.json"
        config.write_text(json.dumps({**document, "listen": "http://192.0.2.1:9100"}))
        refused = run_command("datanode", "--data", tmp_path / "node", "--config", config)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "plain http is for loopback only" in refused.stderr
        assert not (tmp_path / "node").exists()

        plain = {**json.loads(machines.master_file.read_text()), "listen": "http://192.0.2.1:9100"}
        config.write_text(json.dumps(plain))
        refused = run_command("master", "--config", config)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "plain http is for loopback only" in refused.stderr


def test_a_key_of_another_node_registers_nobody(tmp_path: Path) -> None:
    """A datanode that presents a key which was not made for its id stays unknown."""
    with ExitStack() as running:
        machines = Machines(tmp_path, running)
        machines.start_records_and_master()
        tls = ("--tls-cert", machines.tls.files.cert, "--tls-key", machines.tls.files.key, "--tls-ca", machines.tls.ca)
        one, other = (
            load_json("node", "add", "--data", machines.main, "--listen", f"https://127.0.0.1:{free_port()}", *tls)
            for _ in range(2)
        )
        assert one["node_id"] != other["node_id"]
        assert one["node_key"] != other["node_key"]
        config = tmp_path / "mixed.json"
        config.write_text(json.dumps({**one, "node_key": other["node_key"]}))
        log = "answered 401"
        machines.start("mixed", log, "datanode", "--data", tmp_path / "node", "--config", config)
        assert machines.nodes() == []


def test_a_gateway_that_cannot_start_is_one_line(tmp_path: Path) -> None:
    """And exit status 1, before anything is started."""
    with ExitStack() as running:
        file = Machines(tmp_path, running).main / "run" / "gateway.json"
    document = {**json.loads(file.read_text()), "listen": "127.0.0.1:0"}
    changes: dict[str, dict[str, Any]] = {
        "surprise": {"surprise": 1},
        "HOST:PORT": {"listen": "9000"},
        "between 1 and 64 workers": {"workers": 1000},
        "go together": {"tls_cert": "a.pem"},
        "cannot load": {"tls_cert": "/nonexistent/a.pem", "tls_key": "/nonexistent/a.key"},
    }
    for reason, change in changes.items():
        file.write_text(json.dumps({**document, **change}))
        refused = run_command("gateway", "--config", file)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
        assert reason in refused.stderr


def free_ports(count: int) -> int:
    """The first of consecutive ports that were free a moment ago."""
    while True:
        ports = [free_port() for _ in range(count)]
        if ports == list(range(ports[0], ports[0] + count)):
            return ports[0]


def test_a_machine_joins_a_running_up(tmp_path: Path) -> None:
    """`up` opened to other machines talks https inside as well; it is not ready before there are nodes enough, and a
    node made with `node add` is what it waits for."""
    tls = make_internal_tls(tmp_path)
    internal = {"tls_cert": tls.files.cert, "tls_key": tls.files.key, "tls_ca": tls.ca}
    listen, port = f"https://127.0.0.1:{free_ports(3)}", free_port()
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps({"internal": {**internal, "listen": listen}, "reserve_bytes": 0}))
    data, machine, log = tmp_path / "data", tmp_path / "machine", tmp_path / "log"
    machine.mkdir()
    flags = ("--listen", f"127.0.0.1:{port}", "--datanodes", "1", "--workers", "1", "--config", settings)
    files = ("--tls-cert", tls.files.cert, "--tls-key", tls.files.key, "--tls-ca", tls.ca)
    with ExitStack() as running:
        main = running.enter_context(running_role(log, f"ready on {listen}", "up", "--data", data, *flags))
        document = load_json("node", "add", "--data", data, "--listen", f"https://127.0.0.1:{free_port()}", *files)
        assert document["masters"] == [listen]
        assert "Frostbyte is ready" not in log.read_text()  # two copies on one datanode cannot be
        config = machine / "config.json"
        config.write_text(json.dumps({**document, "reserve_bytes": 0}))
        arguments = ("datanode", "--data", machine / "data", "--config", config)
        running.enter_context(running_role(tmp_path / "machine.log", "registered with", *arguments))
        wait_until(lambda: "Frostbyte is ready" in log.read_text(), WAIT_S, "the start")
        client = client_at(port)
        client.create_bucket(Bucket="roles")
        put_all(client, "spread")
        verify_all(client, "spread")
        assert len(list_chunks(machine / "data")) == 3
        nodes = load_json("node", "list", "--data", data)
        assert all(node["address"].startswith("https://127.0.0.1:") for node in nodes)
        main.send_signal(signal.SIGTERM)
        assert main.wait(WAIT_S) == 0
