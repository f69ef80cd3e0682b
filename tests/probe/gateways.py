"""Two hosts' worth of gateways over one PostgreSQL: one master, three datanodes over https, and a server of their own.

The hosts are directories and ports of this machine. What two real hosts would each have a copy of - the keyring, the
master key and the internal key - is one directory here, which both gateways read.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.postgres_pair import PostgresPair
from tests.postgres_server import PostgresMissingError, PostgresServer, shared_databases
from tests.probe.roles import load_json, running_role, succeed
from tests.probe.server import ACCESS_KEY_ID, REGION, ROLE_MODULES, SECRET_ACCESS_KEY, free_port, module_of
from tests.tls import InternalTls, make_internal_tls

MANY_GATEWAYS = "many gateways"
"""the xdist group of the tests that share two of them"""
WAIT_S = 60.0
DATANODES = 3
CONNECTIONS_MAX = 4
"""of each worker and the master"""


class Gateway:
    """`frostbyte gateway` of one host, with one worker."""

    def __init__(self, name: str, port: int, process: Any, log: Path) -> None:
        self.name = name
        self.port = port
        self.process = process
        self.log = log

    def client(self, access_key_id: str = ACCESS_KEY_ID, secret: str = SECRET_ACCESS_KEY) -> Any:
        """A boto3 client that tries once."""
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret,
            config=Config(
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=60,
                max_pool_connections=32,
                s3={"addressing_style": "path"},
            ),
        )

    def ready(self) -> int:
        """The status of /-/ready; 0 when nothing answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Their process ids."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if module_of(int(pid)) == ROLE_MODULES["gateway"]]


class Hosts:
    """Started by `running_hosts`."""

    def __init__(self, root: Path, running: ExitStack, database: PostgresServer, dsn: str, masters: int = 1) -> None:
        self.root = root
        self.database = database
        self.dsn = dsn
        self.data = root / "shared"
        self.config = root / "config.json"
        self.processes: list[Any] = []
        """of all roles that were started"""
        self._running = running
        self.tls: InternalTls = make_internal_tls(root)
        self.masters = [f"https://127.0.0.1:{free_port()}" for _ in range(masters)]
        """addresses; the first one's file is the one that `init` wrote"""
        settings = {
            "datanodes": 0,
            "lease_ttl_s": 6,
            "metadata": {"engine": "postgresql", "dsn": dsn, "connections_max": CONNECTIONS_MAX},
            "internal": {
                "listen": self.masters[0],
                "masters": self.masters[1:],
                "tls_cert": self.tls.files.cert,
                "tls_key": self.tls.files.key,
                "tls_ca": self.tls.ca,
            },
        }
        self.config.write_text(json.dumps(settings))
        succeed("init", "--data", self.data, "--config", self.config)
        self.master_file = self.data / "run" / "master.json"

    def start_cluster(self) -> None:
        """The masters and the datanodes, each with its own key file."""
        for number in range(len(self.masters)):
            self.start_master(number)
        for number in range(1, DATANODES + 1):
            machine = self.root / f"node-{number}"
            machine.mkdir()
            document = load_json(
                *("node", "add", "--data", self.data, "--listen", f"https://127.0.0.1:{free_port()}"),
                *("--key-file", machine / "node.key", "--zone", f"zone-{number}"),
                *("--tls-cert", self.tls.files.cert, "--tls-key", self.tls.files.key, "--tls-ca", self.tls.ca),
            )
            config = machine / "config.json"
            config.write_text(json.dumps({**document, "reserve_bytes": 0}))
            arguments = ("datanode", "--data", machine / "data", "--config", config)
            self.start_role(f"node-{number}", "registered with", *arguments)

    def start_master(self, number: int) -> Any:
        """The first one, or one of another machine: the same file but for where it listens. Its log is by itself."""
        listen, file = self.masters[number], self.master_file
        if number:
            file = self.root / f"master-{number}.json"
            file.write_text(json.dumps({**json.loads(self.master_file.read_text()), "listen": listen}))
        name = f"master-{number}" if number else "master"
        (self.root / f"{name}.log").unlink(missing_ok=True)
        return self.start_role(name, f"ready on {listen}", "master", "--config", file)

    def start_gateway(self, name: str, **settings: Any) -> Gateway:
        """A host with its own config.json, port and log; settings: over those that `init` wrote."""
        port, file = free_port(), self.root / f"{name}.json"
        document = json.loads((self.data / "run" / "gateway.json").read_text())
        file.write_text(json.dumps({**document, "listen": f"127.0.0.1:{port}", "workers": 1, **settings}))
        process = self.start_role(name, "Frostbyte is ready", "gateway", "--config", file)
        return Gateway(name, port, process, self.root / f"{name}.log")

    def start_role(self, name: str, ready: str, *arguments: str | Path) -> Any:
        """Ends with the test."""
        process = self._running.enter_context(running_role(self.root / f"{name}.log", ready, *arguments))
        self.processes.append(process)
        return process


@contextmanager
def running_hosts(
    root: Path, pair: PostgresPair | None = None, *, masters: int = 1
) -> Iterator[tuple[Hosts, Gateway, Gateway]]:
    """Everything, with a PostgreSQL that the test may stop, or over a pair of them. Skips without its programs, or
    fails with CI=true."""
    with ExitStack() as running:
        try:
            database = PostgresServer() if pair is None else pair.primary
        except PostgresMissingError:
            shared_databases()  # which skips or fails, and says why
            pytest.skip("needs a PostgreSQL server of its own")
        running.callback(database.stop)
        hosts = Hosts(root, running, database, database.dsn() if pair is None else pair.dsn, masters)
        hosts.start_cluster()
        yield hosts, hosts.start_gateway("east"), hosts.start_gateway("west")
