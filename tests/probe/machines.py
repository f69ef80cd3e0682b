"""A cluster whose roles run alone, as on several machines: https between all of them, each datanode with its own key
file and its own disk. The machines are directories on this one, or hosts in network namespaces."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from storage.base.ids import ChunkId
from tests.probe.namespaces import Host
from tests.probe.roles import FROSTBYTE, load_json, running_role, succeed
from tests.probe.server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, free_port
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import list_chunks
from tests.tls import InternalTls, make_internal_tls

LOOPBACK = "127.0.0.1"
UP_WAIT_S = 60.0

_T = TypeVar("_T")


def client_at(port: int, address: str = LOOPBACK) -> Any:
    """A boto3 client that tries once."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{address}:{port}",
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY_ID,
        aws_secret_access_key=SECRET_ACCESS_KEY,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=60, s3={"addressing_style": "path"}),
    )


class Machines:
    """What stands on which machine is in a directory of its own; only `main` has keys and records.

    hosts: the first has the records, the master and the gateway, the others a datanode each; none: all on this machine.
    """

    def __init__(
        self,
        root: Path,
        running: ExitStack,
        hosts: Sequence[Host] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.main = root / "main"
        self.hosts = hosts
        self.tls: InternalTls = make_internal_tls(root, [host.address for host in hosts])
        self.datanodes: dict[int, Any] = {}
        """the process that was started last on each machine"""
        self._running = running
        self.internal = f"https://{self.address(0)}:{free_port()}"
        settings = {
            **(settings or {}),
            "datanodes": 0,
            "internal": {
                "listen": self.internal,
                "tls_cert": self.tls.files.cert,
                "tls_key": self.tls.files.key,
                "tls_ca": self.tls.ca,
            },
        }
        config = root / "config.json"
        config.write_text(json.dumps(settings))
        self.said = succeed("init", "--data", self.main, "--config", config)
        self.master_file = self.main / "run" / "master.json"

    def address(self, number: int) -> str:
        """Of a machine; 0 is the main one."""
        return self.hosts[number].address if self.hosts else LOOPBACK

    def start(self, name: str, ready: str, *arguments: str | Path, machine: int = 0) -> Any:
        """A role that ends with the test."""
        program = (*self.hosts[machine].program, *FROSTBYTE) if self.hosts else FROSTBYTE
        role = running_role(self.root / f"{name}.log", ready, *arguments, program=program)
        return self._running.enter_context(role)

    def start_records_and_master(self) -> None:
        """The two that there is one of."""
        records = json.loads(self.master_file.read_text())["metadata"]
        self.start("metadata", "ready", "metadata", "--data", records["path"], "--socket", records["socket"])
        self.start_master()

    def start_master(self) -> None:
        """The first time or again."""
        name = f"master-{len(list(self.root.glob('master-*.log')))}"
        self.master = self.start(name, f"ready on {self.internal}", "master", "--config", self.master_file)

    def change_master(self, change: dict[str, Any]) -> None:
        """Further settings of its file, before it is started."""
        self.master_file.write_text(json.dumps({**json.loads(self.master_file.read_text()), **change}))

    def start_datanode(self, number: int) -> Any:
        """A new machine: what `node add` printed, its own key file and its own disk."""
        machine = self.root / f"machine-{number}"
        machine.mkdir(exist_ok=True)
        config = machine / "config.json"
        if not config.exists():
            document = load_json(
                *("node", "add", "--data", self.main, "--listen", f"https://{self.address(number)}:{free_port()}"),
                *("--key-file", machine / "node.key", "--zone", f"zone-{number}"),
                *("--tls-cert", self.tls.files.cert, "--tls-key", self.tls.files.key, "--tls-ca", self.tls.ca),
            )
            assert (machine / "node.key").stat().st_mode & 0o077 == 0
            assert "node_key" not in document
            config.write_text(json.dumps({**document, "reserve_bytes": 0}))
        data = machine / "data"
        arguments = ("datanode", "--data", data, "--config", config)
        process = self.datanodes[number] = self.start(
            f"machine-{number}", "registered with", *arguments, machine=number
        )
        return process

    def start_gateway(self) -> Any:
        """Two workers; a client of them."""
        port = free_port()
        file = self.main / "run" / "gateway.json"
        listen = ("--listen", f"{self.address(0)}:{port}", "--workers", "2")
        self.start("gateway", "Frostbyte is ready", "gateway", "--config", file, *listen)
        return client_at(port, self.address(0))

    def nodes(self) -> list[dict[str, Any]]:
        """As an operator sees them, through the master's own file."""
        listed: list[dict[str, Any]] = self.on_main(lambda: load_json("node", "list", "--master", self.master_file))
        return listed

    def wait_until_up(self, count: int) -> None:
        """Until there are so many nodes and all of them are up."""
        wait_until(lambda: [node["state"] for node in self.nodes()] == ["up"] * count, UP_WAIT_S, "all nodes up")

    def survey(self) -> dict[str, Any]:
        """What the master knows of the health of the data."""
        survey: dict[str, Any] = self.on_main(lambda: load_json("status", "--master", self.master_file)["survey"])
        return survey

    def on_main(self, function: Callable[[], _T]) -> _T:
        """What the function gives on the main machine."""
        return self.hosts[0].call(function) if self.hosts else function()

    def data(self, number: int) -> Path:
        """Of a machine's datanode."""
        return self.root / f"machine-{number}" / "data"

    def chunks(self, number: int) -> list[ChunkId]:
        """What a machine stores."""
        return list_chunks(self.data(number))

    def stored_bytes(self, number: int) -> int:
        """What they take of its disk. (Segments have holes.)"""
        files = (path for path in (self.data(number) / "chunks").rglob("*") if path.is_file())
        return sum(path.stat().st_blocks * 512 for path in files)
