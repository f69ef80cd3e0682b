"""A primary and a synchronous standby below two running gateways: the primary is killed under load, the standby is
promoted, and the gateways go on by themselves with everything that they had acknowledged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgres_pair import PostgresPair, running_pair
from tests.probe.chaos_load import BUCKET, ChaosClient
from tests.probe.gateways import WAIT_S, Gateway, Hosts, running_hosts
from tests.probe.roles import load_json, succeed
from tests.probe.test_chaos import running, wait_for_progress
from tests.probe.waiting import wait_until

CLIENTS_EACH = 3
SIZES = (0, 300, 5_000, 40_000, 200_000, 3_000_000)
PROGRESS = 60
FAILED_MIN = 1

pytestmark = pytest.mark.xdist_group("failover")


class Watched:
    """Clients of a gateway, with every answer of a server's error and every call without an answer noted."""

    def __init__(self, gateway: Gateway) -> None:
        self.refusals: list[tuple[int, str | None]] = []
        """status, Retry-After"""
        self.unanswered: list[Exception] = []
        self._gateway = gateway
        self._lock = threading.Lock()

    def client(self) -> Any:
        client = self._gateway.client()
        client.meta.events.register("after-call.s3", self._note_answer)
        client.meta.events.register("after-call-error.s3", self._note_error)
        return client

    def _note_answer(self, http_response: Any, **_: Any) -> None:
        if http_response.status_code >= 500:
            with self._lock:
                self.refusals.append((http_response.status_code, http_response.headers.get("Retry-After")))

    def _note_error(self, exception: Exception, **_: Any) -> None:
        with self._lock:
            self.unanswered.append(exception)


@pytest.fixture
def pair() -> Iterator[PostgresPair]:
    """The standby counts before anything is stored."""
    with running_pair() as started:
        asyncio.run(started.make_synchronous())
        yield started


@pytest.fixture
def hosts(pair: PostgresPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Gateway, Gateway]]:
    """Both gateways know both servers."""
    with running_hosts(tmp_path_factory.mktemp("hosts"), pair) as started:
        yield started


def warnings_of(hosts: Hosts) -> list[str]:
    """What `frostbyte status` says of the metadata."""
    return [line for line in load_json("status", "--data", hosts.data)["warnings"] if line.startswith("Metadata")]


@pytest.mark.timeout(300)
def test_a_failover_under_load_loses_nothing_acknowledged(
    pair: PostgresPair, hosts: tuple[Hosts, Gateway, Gateway]
) -> None:
    """Puts, deletes, copies and multipart uploads with an account of what was acknowledged. What is in flight gets 503
    and Retry-After, and nothing worse; no process ends; every object reads back as its SHA-256 says. The loss window is
    nothing before, and told when only one server is left."""
    cluster, *gateways = hosts
    assert warnings_of(cluster) == []
    assert not any("standby" in gateway.log.read_text() for gateway in gateways)
    gateways[0].client().create_bucket(Bucket=BUCKET)
    workers = [gateway.workers() for gateway in gateways]
    watched = [Watched(gateway) for gateway in gateways]
    clients = [
        ChaosClient(watching, 100 * side + number, SIZES)
        for side, watching in enumerate(watched)
        for number in range(CLIENTS_EACH)
    ]
    with running(clients):
        wait_for_progress(clients, PROGRESS)
        assert not any(watching.refusals for watching in watched)
        pair.kill_primary()
        wait_until(lambda: all(gateway.ready() == 503 for gateway in gateways), WAIT_S, "being unready")
        pair.standby.promote()
        wait_until(lambda: all(gateway.ready() == 200 for gateway in gateways), WAIT_S, "being ready again")
        wait_for_progress(clients, PROGRESS)
    told = [sum(client.acknowledged for client in clients), *(len(watching.refusals) for watching in watched)]
    print("{} requests acknowledged, {} and {} refused".format(*told))
    for watching in watched:
        assert len(watching.refusals) >= FAILED_MIN
        assert {status for status, _ in watching.refusals} == {503}
        assert all(int(retry_after or 0) >= 1 for _, retry_after in watching.refusals)
        assert watching.unanswered == []
    assert [problem for client in clients for problem in client.violations] == []
    for client in clients:
        for object_key in client.possible:
            assert client.check(object_key, lenient=False) is None
    assert [gateway.workers() for gateway in gateways] == workers, "a worker ended"
    assert all(process.poll() is None for process in cluster.processes), "a role ended"
    assert "whole" in succeed("metadata", "check", "--data", cluster.data)
    assert any("no synchronous standby" in line for line in warnings_of(cluster))
