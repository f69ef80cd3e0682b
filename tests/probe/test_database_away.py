"""A database that is away, or slow, beneath two running gateways: clients get 503 or wait, both within bounds, and the
gateways neither end nor grow. What was measured is printed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest
from botocore.exceptions import ClientError

from storage.metadata.postgresql.database import COMMAND_DEADLINE_S
from storage.metadata.postgresql.pool import ACQUIRE_DEADLINE_S
from tests.bench.processes import PeakMemory, read_pss_mib
from tests.bench.requests import presign
from tests.clients.endpoint import Endpoint
from tests.postgres_server import server_processes
from tests.probe.account import Account, verify_account
from tests.probe.gateways import CONNECTIONS_MAX, DATANODES, MANY_GATEWAYS, WAIT_S, Gateway, Hosts
from tests.probe.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from tests.probe.waiting import wait_until

AWAY_S = 10.0
LONG_AWAY_S = 60.0
REFUSED_S_MAX = {"stopped": 20.0, "stalled": COMMAND_DEADLINE_S + ACQUIRE_DEADLINE_S}
"""nobody listens: long before a statement would be given up; nothing answers: the longest is a statement that was sent,
on a connection that was waited for"""
GROWTH_MIB_MAX = 64.0
"""of one worker: what requests that wait hold, and what the allocator keeps of it"""
DESCRIPTORS_LEFT_MAX = 40
"""of one worker: pooled connections to datanodes and the database"""
SLOW_CLIENTS = 150
"""of each gateway; with so few connections to the database some wait longer than they may"""
SLEEP_S = 0.4
BODY = b"x" * 8192

_SLOW_HEADS = f"""
CREATE FUNCTION frostbyte.sleep_first() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep({SLEEP_S}); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON frostbyte.heads
    FOR EACH ROW EXECUTE FUNCTION frostbyte.sleep_first()"""
_QUICK_HEADS = "DROP TRIGGER slow ON frostbyte.heads; DROP FUNCTION frostbyte.sleep_first()"
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'frostbyte'"

pytestmark = pytest.mark.xdist_group(MANY_GATEWAYS)


class Workers:
    """The gateway workers: that they live on, and what they hold."""

    def __init__(self, *gateways: Gateway) -> None:
        self._gateways = gateways
        self.pids = self._list()
        self._before_mib = {pid: read_pss_mib([pid]) for pid in self.pids}
        self._descriptors = {pid: _count_descriptors(pid) for pid in self.pids}

    def _list(self) -> list[int]:
        return [pid for gateway in self._gateways for pid in gateway.workers()]

    @contextmanager
    def bounded(self) -> Iterator[None]:
        """The peak of each during the block stays near what it was."""
        peaks = [PeakMemory(lambda pid=pid: [pid]) for pid in self.pids]  # type: ignore[misc]
        for peak in peaks:
            peak.__enter__()
        try:
            yield
        finally:
            for peak in peaks:
                peak.__exit__(None, None, None)
        grown = [peak.peak_mib - self._before_mib[pid] for pid, peak in zip(self.pids, peaks, strict=True)]
        print(
            f"workers' PSS before: {[round(mib) for mib in self._before_mib.values()]} MiB, "
            f"grew at most by {[round(mib, 1) for mib in grown]} MiB"
        )
        assert max(grown) < GROWTH_MIB_MAX

    def require_unchanged(self) -> None:
        """The same processes; what is open is not much more than before."""
        assert self._list() == self.pids, "a worker ended"
        wait_until(self._has_few_descriptors, WAIT_S, "closing what clients left")

    def _has_few_descriptors(self) -> bool:
        return all(_count_descriptors(pid) <= self._descriptors[pid] + DESCRIPTORS_LEFT_MAX for pid in self.pids)


def _count_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("away_s", [AWAY_S, pytest.param(LONG_AWAY_S, marks=pytest.mark.long)])
@pytest.mark.parametrize("how", ["stalled", "stopped"])
def test_a_database_that_is_away(
    hosts: tuple[Hosts, Gateway, Gateway], east: Any, west: Any, how: str, away_s: float
) -> None:
    """Nothing answers (every process of the server is stopped by SIGSTOP) or nobody listens: reads and writes get 503
    with Retry-After, /-/ready is 503, and all comes back by itself, with everything that was acknowledged."""
    running, one, other = hosts
    bucket = f"away-{how}-{away_s:.0f}"
    east.create_bucket(Bucket=bucket)
    east.put_object(Bucket=bucket, Key="kept", Body=b"kept")
    workers = Workers(one, other)
    with Account(bucket, east, west, threads_each=6) as account:
        account.wait_for_more(20)
        with away(running, how) as took_away_s, workers.bounded():
            wait_until(lambda: one.ready() == other.ready() == 503, WAIT_S, "being unready without a database")
            while True:
                require_refusals(bucket, (east, west), REFUSED_S_MAX[how])
                if time.monotonic() - took_away_s > away_s:
                    break
            assert [one.ready(), other.ready()] == [503, 503]
        wait_until(lambda: one.ready() == other.ready() == 200, WAIT_S, "being ready again")
        account.wait_for_more(20)
    workers.require_unchanged()
    verify_account(account, bucket, west)
    assert west.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"kept"
    for refusal in account.refused:
        if isinstance(refusal, ClientError):
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def require_refusals(bucket: str, clients: tuple[Any, ...], longest_s: float) -> None:
    """A read and a write by each client at once: all are told to come back later, in time."""
    with ThreadPoolExecutor(2 * len(clients)) as asking:
        refusals = [asking.submit(refused_by, it.get_object, Bucket=bucket, Key="kept") for it in clients]
        refusals += [asking.submit(refused_by, it.put_object, Bucket=bucket, Key="new", Body=b"x") for it in clients]
    for status, headers, waited_s in (refusal.result() for refusal in refusals):
        assert status == 503
        assert int(headers["retry-after"]) >= 1
        assert waited_s < longest_s


def refused_by(call: Callable[..., Any], **arguments: Any) -> tuple[int, dict[str, str], float]:
    """The status and the headers of a refusal, and how long it took."""
    began_s = time.monotonic()
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    answer = refused.value.response["ResponseMetadata"]
    return answer["HTTPStatusCode"], answer["HTTPHeaders"], time.monotonic() - began_s


@contextmanager
def away(running: Hosts, how: str) -> Iterator[float]:
    """The database of other tests as well: it is back after the block, whatever happens there. → when it went."""
    if how == "stopped":
        running.database.end(signal.SIGQUIT)
        bring_back = running.database.start
    else:
        stop_or_go(running, signal.SIGSTOP)
        bring_back = partial(stop_or_go, running, signal.SIGCONT)
    try:
        yield time.monotonic()
    finally:
        bring_back()


def stop_or_go(running: Hosts, signal_number: int) -> None:
    """To every process of the database."""
    for pid in server_processes(running.database):
        os.kill(pid, signal_number)


@pytest.mark.timeout(300)
def test_a_slow_database_makes_clients_wait(hosts: tuple[Hosts, Gateway, Gateway], east: Any, west: Any) -> None:
    """Every write of a key takes long and many clients come: they stand in line, no further connections are made, those
    who waited too long get 503, and once the database is quick again so is everything."""
    running, *gateways = hosts
    east.create_bucket(Bucket="slow")
    workers = Workers(*gateways)
    change(running.dsn, _SLOW_HEADS)
    try:
        with workers.bounded():
            told, longest_s, connections = asyncio.run(crowd(running.dsn, gateways))
    finally:
        change(running.dsn, _QUICK_HEADS)
    print(f"answers: {dict(told)}, the latest after {longest_s:.1f} s; {connections} database connections at most")
    assert set(told) == {200, 503}
    assert longest_s < ACQUIRE_DEADLINE_S + COMMAND_DEADLINE_S
    pools = sum(process.poll() is None for process in running.processes) - DATANODES
    assert connections <= CONNECTIONS_MAX * pools
    listed = [entry["Key"] for entry in west.list_objects_v2(Bucket="slow").get("Contents", ())]
    assert len(listed) >= told[200]
    workers.require_unchanged()
    for client in (east, west):
        # writes that were given up may sleep on in the database for a while
        wait_until(lambda client=client: is_taken(client), WAIT_S, "taking writes again")  # type: ignore[misc]
        assert client.get_object(Bucket="slow", Key="quick")["Body"].read() == b"quick"


def is_taken(client: Any) -> bool:
    """Whether a write is taken and not told to come again."""
    try:
        client.put_object(Bucket="slow", Key="quick", Body=b"quick")
    except ClientError as refused:
        assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        return False
    return True


def change(dsn: str, statements: str) -> None:
    """By the owner of the database."""

    async def execute() -> None:
        admin = await asyncpg.connect(dsn)
        await admin.execute(statements)
        await admin.close()

    asyncio.run(execute())


async def crowd(dsn: str, gateways: list[Gateway]) -> tuple[Counter[int], float, int]:
    """A PUT by each of many clients, all at once. → how often which status, seconds until the latest answer, and the
    most connections that the database had meanwhile."""
    admin = await asyncpg.connect(dsn)
    puts = [
        asyncio.create_task(put(gateway.port, f"/slow/{number:03}-{gateway.name}"))
        for number in range(SLOW_CLIENTS)
        for gateway in gateways
    ]
    connections = 0
    while not all(it.done() for it in puts):
        connections = max(connections, await admin.fetchval(_CONNECTIONS))
        await asyncio.wait(puts, timeout=0.1)
    await admin.close()
    answers = [it.result() for it in puts]
    return Counter(status for status, _ in answers), max(waited_s for _, waited_s in answers), connections


async def put(port: int, path: str) -> tuple[int, float]:
    """→ the status, and the seconds until it came."""
    endpoint = Endpoint(f"http://127.0.0.1:{port}", ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    target = presign(endpoint, "PUT", path)
    began_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(BODY)}\r\n\r\n"
        writer.write(head.encode() + BODY)
        return int((await reader.readline()).split()[1]), time.monotonic() - began_s
    finally:
        writer.close()
