"""A network that swallows packets, between hosts in network namespaces: nothing acknowledged is lost, nothing wrong is
read, and everything goes on by itself when the network is back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.probe import namespaces
from tests.probe.account import Account, verify_account
from tests.probe.load import body_of
from tests.probe.machines import Machines
from tests.probe.namespaces import Host, running_network
from tests.probe.waiting import wait_until

BUCKET = "cut"
DATANODES = 4
WAIT_S = 60.0

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("namespaces")]


class Cluster(NamedTuple):
    """hosts: the main one first, then a datanode each."""

    machines: Machines
    hosts: list[Host]
    client: Any
    cut_off: Callable[..., Any]

    def states(self) -> list[str]:
        """Of the nodes, in their order."""
        return [str(node["state"]) for node in self.machines.nodes()]

    def wait_for_states(self, *states: str) -> None:
        """Until the nodes are in these states."""
        wait_until(lambda: self.states() == list(states), WAIT_S, f"nodes being {states}")

    def account(self) -> Account:
        """Four writers on the gateway's own host."""
        return Account(BUCKET, self.client, threads_each=4, at_start=self.hosts[0].enter)

    def verify(self, account: Account) -> None:
        """Everything acknowledged reads back whole."""
        self.hosts[0].call(lambda: verify_account(account, BUCKET, self.client))

    def put(self, name: str) -> str:
        """`ok`, or the code of the refusal."""

        def attempt() -> str:
            try:
                self.client.put_object(Bucket=BUCKET, Key=name, Body=body_of(name, 300_000))
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            except BotoCoreError as error:
                return type(error).__name__
            return "ok"

        return self.hosts[0].call(attempt)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Records, master and gateway on one host, four datanodes on four others."""
    reason = namespaces.explain_missing()
    if reason is not None:
        pytest.skip(reason)
    with running_network() as network, ExitStack() as running:
        hosts = [network.add_host() for _ in range(DATANODES + 1)]
        machines = Machines(tmp_path, running, hosts)
        machines.start_records_and_master()
        for number in range(1, DATANODES + 1):
            machines.start_datanode(number)
        client = machines.start_gateway()
        made = Cluster(machines, hosts, client, network.cut_off)
        made.wait_for_states(*["up"] * DATANODES)
        hosts[0].call(lambda: client.create_bucket(Bucket=BUCKET))
        yield made


@pytest.mark.long
def test_a_host_is_cut_off_and_comes_back(cluster: Cluster) -> None:
    """Writes go on beside it before anybody has noticed, and after; it is up again by itself, and read from."""
    with cluster.account() as account:
        account.wait_for_more(20)
        with cluster.cut_off(cluster.hosts[2]):
            account.wait_for_more(40)
            cluster.wait_for_states("up", "suspect", "up", "up")
            account.wait_for_more(40)
            cluster.wait_for_states("up", "dead", "up", "up")
            account.wait_for_more(40)
            cluster.verify(account)
        cluster.wait_for_states(*["up"] * DATANODES)
        account.wait_for_more(40)
    cluster.verify(account)
    assert not [error for error in account.refused if not _is_retryable(error)]


@pytest.mark.long
def test_too_many_hosts_are_cut_off(cluster: Cluster) -> None:
    """With one datanode left of four, a write would have one copy in place of two: 503, and no object. What has a copy
    on the one that is left can be read; everything goes on when the network does."""
    with cluster.account() as account:
        account.wait_for_more(40)
    with cluster.cut_off(*cluster.hosts[2:]):
        assert cluster.put("refused") in ("SlowDown", "ServiceUnavailable")
        cluster.wait_for_states("up", "dead", "dead", "dead")
        assert cluster.put("refused") in ("SlowDown", "ServiceUnavailable")
    cluster.wait_for_states(*["up"] * DATANODES)
    wait_until(lambda: cluster.put("accepted") == "ok", WAIT_S, "writing again")
    cluster.verify(account)
    listed = cluster.hosts[0].call(lambda: cluster.client.list_objects_v2(Bucket=BUCKET, Prefix="refused"))
    assert listed["KeyCount"] == 0


def _is_retryable(error: BaseException) -> bool:
    """A 503 or a broken connection, which a client tries again."""
    if isinstance(error, ClientError):
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) == 503
    return isinstance(error, BotoCoreError)
