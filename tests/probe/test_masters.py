"""Several masters over one PostgreSQL: the active one is killed, stopped and woken, or asked to stop, while clients
read and write through two gateways. Who is active, the masters themselves are asked; the figures are printed."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from storage.base.internal_auth import MASTER_NODE_ID, ROLE_MASTER, access_token, bearer, derive_node_key
from tests.probe.account import Account, verify_account
from tests.probe.gateways import WAIT_S, Gateway, Hosts, running_hosts
from tests.probe.load import body_of
from tests.probe.roles import load_json, succeed
from tests.probe.waiting import wait_until

MASTERS = 3
ASK_TIMEOUT_S = 10.0

pytestmark = [pytest.mark.xdist_group("masters"), pytest.mark.timeout(300)]


class Role(NamedTuple):
    """What a master says of itself."""

    is_active: bool
    active: str
    term: int


class Cluster:
    """Three masters, three datanodes, two gateways."""

    def __init__(self, hosts: Hosts, east: Gateway, west: Gateway) -> None:
        self.hosts = hosts
        self.gateways = (east, west)
        self.processes: list[Any] = hosts.processes[:MASTERS]
        internal_key = base64.b64decode((hosts.data / "internal.key").read_text())
        self._token = bearer(access_token(derive_node_key(internal_key, ROLE_MASTER, MASTER_NODE_ID)))
        self._tls = ssl.create_default_context(cafile=hosts.tls.ca)

    def ask(self, number: int) -> Role | None:
        """None when it does not answer."""
        place = urlsplit(self.hosts.masters[number])
        connection = http.client.HTTPSConnection(
            place.hostname or "", place.port, timeout=ASK_TIMEOUT_S, context=self._tls
        )
        try:
            connection.request("GET", "/v1/lease", headers={"Authorization": self._token})
            said = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return Role(said["is_active"], said["active"], said["term"])

    def active(self) -> tuple[int, int]:
        """(number, term) of the one that is active, once there is one; never two at once."""
        found: list[tuple[int, int]] = []

        def look() -> bool:
            roles = [self.ask(number) for number in range(MASTERS)]
            found[:] = [(number, role.term) for number, role in enumerate(roles) if role and role.is_active]
            return bool(found)

        wait_until(look, WAIT_S, "a master leading")
        assert len(found) == 1, found
        return found[0]

    def file_of(self, number: int) -> Path:
        """Its config.json."""
        return self.hosts.root / f"master-{number}.json" if number else self.hosts.master_file

    def log_of(self, number: int) -> str:
        """What it said since it was started last."""
        return (self.hosts.root / (f"master-{number}.log" if number else "master.log")).read_text()

    def restart(self, number: int) -> None:
        """After it ended."""
        self.processes[number] = self.hosts.start_master(number)

    def succeeded(self, number: int, term: int, reading: Any) -> tuple[int, int]:
        """Wait until another one than this leads, reading meanwhile. → (number, term)"""
        found: list[tuple[int, int]] = []

        def look() -> bool:
            reading()
            for other in range(MASTERS):
                role = self.ask(other) if other != number else None
                if role is not None and role.is_active:
                    found.append((other, role.term))
            return bool(found)

        wait_until(look, WAIT_S, "a takeover")
        assert found[-1][1] > term
        return found[-1]

    def node_states(self, number: int) -> list[str]:
        """As `frostbyte node list` tells with one master's file."""
        return [node["state"] for node in load_json("node", "list", "--master", self.file_of(number))]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Started once: every test leaves all masters running."""
    with running_hosts(tmp_path_factory.mktemp("masters"), masters=MASTERS) as (hosts, east, west):
        yield Cluster(hosts, east, west)


class Load:
    """Writers through both gateways, and a reader that the test calls."""

    def __init__(self, cluster: Cluster, bucket: str) -> None:
        self._clients = [gateway.client() for gateway in cluster.gateways]
        self._bucket = bucket
        self._clients[0].create_bucket(Bucket=bucket)
        self._clients[0].put_object(Bucket=bucket, Key="kept", Body=body_of("kept", 200_000))
        self.account = Account(bucket, *self._clients, threads_each=1)
        self.reads = 0

    def read(self) -> None:
        """Through either gateway in turn; whole."""
        client = self._clients[self.reads % 2]
        assert client.get_object(Bucket=self._bucket, Key="kept")["Body"].read() == body_of("kept", 200_000)
        self.reads += 1

    def verify(self) -> None:
        """No write failed, and every one reads back through the other gateway."""
        assert self.account.refused == []
        verify_account(self.account, self._bucket, self._clients[1])


def test_one_of_three_is_active(cluster: Cluster) -> None:
    """The others name it; commands find it by any master's file; a datanode's file names all."""
    number, term = cluster.active()
    for other in range(MASTERS):
        role = cluster.ask(other)
        assert role is not None
        assert (role.is_active, role.active, role.term) == (other == number, cluster.hosts.masters[number], term)
        status = load_json("status", "--master", cluster.file_of(other))
        assert {it["address"]: it["role"] for it in status["masters"]} == {
            address: "active" if at == number else "standby" for at, address in enumerate(cluster.hosts.masters)
        }
        assert {job["last_error"] for job in status["jobs"]} == {""}
    node = json.loads((cluster.hosts.root / "node-1" / "config.json").read_text())
    assert sorted(node["masters"]) == sorted(cluster.hosts.masters)


def test_a_killed_master_is_succeeded(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """kill -9: another one takes over under a higher term with every node as it was, no request fails meanwhile, orders
    reach it, and the killed one stands by when it is started again."""
    number, term = cluster.active()
    load = Load(cluster, "killed-master")
    with load.account:
        load.account.wait_for_more(20)
        began_s = time.monotonic()
        os.kill(cluster.processes[number].pid, signal.SIGKILL)
        successor, next_term = cluster.succeeded(number, term, load.read)
        took_s = time.monotonic() - began_s
        cluster.processes[number].wait(WAIT_S)
        assert cluster.node_states(successor) == ["up"] * 3
        load.account.wait_for_more(20)
        # At once: it would be empty, and gone for good, a few walks later.
        assert "node 2 is draining" in succeed("node", "drain", "2", "--master", cluster.file_of(number))
        succeed("node", "resume", "2", "--master", cluster.file_of(number))
        load.account.wait_for_more(20)
        wait_until(lambda: cluster.node_states(number) == ["up"] * 3, WAIT_S, "the resumed node")
        status = load_json("status", "--master", cluster.file_of(number))
        assert f"The master at {cluster.hosts.masters[number]} does not answer." in status["warnings"]
        cluster.restart(number)
        assert cluster.active() == (successor, next_term)
    load.verify()
    tell(capsys, f"kill -9 of the active master: succeeded after {took_s:.2f} s, {load.reads} reads meanwhile")


def test_a_stopped_master_wakes_up_and_stands_by(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGSTOP, a takeover, SIGCONT: it changes nothing that it believes in, neither a node's state nor the term, and
    both gateways follow the new one."""
    number, term = cluster.active()
    load = Load(cluster, "stopped-master")
    with load.account:
        load.account.wait_for_more(20)
        began_s = time.monotonic()
        os.kill(cluster.processes[number].pid, signal.SIGSTOP)
        try:
            successor, next_term = cluster.succeeded(number, term, load.read)
            took_s = time.monotonic() - began_s
            states = cluster.node_states(successor)
        finally:
            os.kill(cluster.processes[number].pid, signal.SIGCONT)
        assert states == ["up"] * 3
        told = (False, cluster.hosts.masters[successor], next_term)
        wait_until(lambda: cluster.ask(number) == told, WAIT_S, "the woken one standing by")
        load.account.wait_for_more(40)
        assert cluster.active() == (successor, next_term)
        assert cluster.node_states(number) == ["up"] * 3
    load.verify()
    log = cluster.log_of(number)
    assert "stands by" in log
    assert not [
        line for line in log.rpartition("stands by")[2].splitlines() if " is dead" in line or " is suspect" in line
    ]
    tell(capsys, f"SIGSTOP of the active master: succeeded after {took_s:.2f} s, {load.reads} reads meanwhile")


def test_a_master_that_stops_in_order_hands_over(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGTERM: exit status 0, and no lease has to run out."""
    number, term = cluster.active()
    load = Load(cluster, "leaving-master")
    with load.account:
        load.account.wait_for_more(20)
        began_s = time.monotonic()
        cluster.processes[number].send_signal(signal.SIGTERM)
        cluster.succeeded(number, term, load.read)
        took_s = time.monotonic() - began_s
        assert cluster.processes[number].wait(WAIT_S) == 0
        cluster.restart(number)
    load.verify()
    tell(capsys, f"SIGTERM of the active master: succeeded after {took_s:.2f} s")


def test_a_node_dies_after_a_takeover(cluster: Cluster) -> None:
    """The successor has heard of every node itself: a node that is killed becomes suspect, and one that joins is used,
    as both gateways learn from it."""
    number, term = cluster.active()
    os.kill(cluster.processes[number].pid, signal.SIGKILL)
    successor, _ = cluster.succeeded(number, term, lambda: None)
    node = cluster.hosts.processes[MASTERS]
    os.kill(node.pid, signal.SIGKILL)
    wait_until(lambda: "suspect" in cluster.node_states(successor), WAIT_S, "a suspect node")
    for gateway in cluster.gateways:
        client = gateway.client()
        wait_until(lambda client=client: put(client), WAIT_S, "writing without the node")  # type: ignore[misc]
    cluster.restart(number)


def put(client: Any) -> bool:
    """A chunk on two of the nodes that are left."""
    client.create_bucket(Bucket="after-takeover")
    client.put_object(Bucket="after-takeover", Key="k", Body=body_of("k", 200_000))
    return bool(client.get_object(Bucket="after-takeover", Key="k")["Body"].read() == body_of("k", 200_000))


def tell(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """A figure for whoever runs the test."""
    with capsys.disabled():
        print(f"\n{line}")
