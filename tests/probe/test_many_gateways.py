"""Two gateways over one PostgreSQL, as on two hosts: what one acknowledges the other knows at once, races have exactly
one winner, a gateway that dies takes nothing along, and a database that is away makes both say so and nothing worse.

The keyring, master key and internal key are one directory that both hosts read: this release has no other way to share
them than to give each host the same files.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.postgres_pair import server_processes
from tests.probe.gateways import WAIT_S, Gateway, Hosts, running_hosts
from tests.probe.load import body_of
from tests.probe.roles import load_json, succeed
from tests.probe.waiting import wait_until

PART_BYTES = 5 << 20
ROUNDS = 25
RACERS = 4
"""of each gateway"""
SIZES = (0, 300, 40_000, 3 << 20)
AWAY_S = 10.0
RSS_GROWTH_BYTES_MAX = 64 << 20

pytestmark = pytest.mark.xdist_group("many gateways")


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Gateway, Gateway]]:
    """Started once: every test makes its own buckets, and leaves both gateways running."""
    with running_hosts(tmp_path_factory.mktemp("hosts")) as running:
        yield running


@pytest.fixture
def east(hosts: tuple[Hosts, Gateway, Gateway]) -> Any:
    """A client of one gateway."""
    return hosts[1].client()


@pytest.fixture
def west(hosts: tuple[Hosts, Gateway, Gateway]) -> Any:
    """A client of the other."""
    return hosts[2].client()


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    """The error's code; empty when there was none."""
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def race(*calls: Callable[[], str]) -> list[str]:
    """All at once; what each returned, in order."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], str]) -> str:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def test_users_and_buckets_are_known_at_once(hosts: tuple[Hosts, Gateway, Gateway], east: Any, west: Any) -> None:
    """A request that begins after another gateway's answer, or a command's, goes by what that changed."""
    running, one, other = hosts
    for number in range(ROUNDS):
        name = f"coherent-{number}"
        assert code_of(west.head_bucket, Bucket=name) == "404"
        east.create_bucket(Bucket=name)
        west.put_object(Bucket=name, Key="k", Body=b"west")
        assert east.get_object(Bucket=name, Key="k")["Body"].read() == b"west"
        west.delete_object(Bucket=name, Key="k")
        assert code_of(east.get_object, Bucket=name, Key="k") == "NoSuchKey"
        west.delete_bucket(Bucket=name)
        assert code_of(east.put_object, Bucket=name, Key="k", Body=b"") == "NoSuchBucket"

    made = load_json("user", "create", "visitor", "--data", running.data)
    visitors = [gateway.client(made["access_key_id"], made["secret_access_key"]) for gateway in (one, other)]
    for visitor in visitors:
        assert visitor.list_buckets()["Buckets"] == []
    visitors[0].create_bucket(Bucket="visited")
    assert [bucket["Name"] for bucket in visitors[1].list_buckets()["Buckets"]] == ["visited"]
    assert code_of(west.head_bucket, Bucket="visited") in ("", "403")
    visitors[1].delete_bucket(Bucket="visited")
    succeed("user", "delete", "visitor", "--data", running.data)
    for visitor in visitors:
        assert code_of(visitor.list_buckets) == "InvalidAccessKeyId"


def test_a_conditional_put_has_one_winner(east: Any, west: Any) -> None:
    """Of all who create a key through both gateways, and of all who replace what they saw; everybody reads the
    winner's body."""
    east.create_bucket(Bucket="races")
    for number in range(ROUNDS):
        key = f"key-{number}"
        bodies = [f"{number}-{racer}".encode() * (1 if number % 2 else 9000) for racer in range(2 * RACERS)]

        puts = [partial(c.put_object, Bucket="races", Key=key) for c in (east, west)] * RACERS
        codes = race(
            *[partial(code_of, put, Body=body, IfNoneMatch="*") for put, body in zip(puts, bodies, strict=True)]
        )
        assert codes.count("") == 1, codes
        assert set(codes) <= {"", "PreconditionFailed", "ConditionalRequestConflict"}
        seen = [client.get_object(Bucket="races", Key=key) for client in (east, west)]
        assert [answer["Body"].read() for answer in seen] == [bodies[codes.index("")]] * 2

        etag = seen[0]["ETag"]
        codes = race(
            *[partial(code_of, put, Body=b"replaced %d" % racer, IfMatch=etag) for racer, put in enumerate(puts)]
        )
        assert codes.count("") == 1, codes
        winner = b"replaced %d" % codes.index("")
        assert [c.get_object(Bucket="races", Key=key)["Body"].read() for c in (east, west)] == [winner] * 2


def test_a_multipart_upload_goes_through_both(east: Any, west: Any) -> None:
    """Begun on one, its parts on both, listed and completed on the other; a Complete that races another answers the
    same object, and one that races an Abort leaves the whole object or nothing."""
    east.create_bucket(Bucket="parts")
    upload = east.create_multipart_upload(Bucket="parts", Key="big")["UploadId"]
    bodies = [body_of(f"part-{number}", PART_BYTES if number < 3 else 1000) for number in (1, 2, 3)]
    named = {"Bucket": "parts", "Key": "big", "UploadId": upload}
    parts = [
        {"PartNumber": number, "ETag": client.upload_part(**named, PartNumber=number, Body=body)["ETag"]}
        for number, body, client in zip((1, 2, 3), bodies, (east, west, east), strict=True)
    ]
    assert [part["Size"] for part in west.list_parts(**named)["Parts"]] == [len(body) for body in bodies]
    done = {**named, "MultipartUpload": {"Parts": parts}}
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda client: client.complete_multipart_upload(**done)["ETag"], (west, east)))
    assert answers[0] == answers[1]
    for client in (east, west):
        assert client.get_object(Bucket="parts", Key="big")["Body"].read() == b"".join(bodies)
        assert "Uploads" not in client.list_multipart_uploads(Bucket="parts")

    for number in range(5):
        key = f"raced-{number}"
        upload = west.create_multipart_upload(Bucket="parts", Key=key)["UploadId"]
        named = {"Bucket": "parts", "Key": key, "UploadId": upload}
        part = {"PartNumber": 1, "ETag": east.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]}
        completed, aborted = race(
            partial(code_of, east.complete_multipart_upload, **named, MultipartUpload={"Parts": [part]}),
            partial(code_of, west.abort_multipart_upload, **named),
        )
        assert completed in ("", "NoSuchUpload")
        assert aborted in ("", "NoSuchUpload")
        expected = "" if completed == "" else "NoSuchKey"
        assert [code_of(c.get_object, Bucket="parts", Key=key) for c in (east, west)] == [expected] * 2


def test_a_bucket_is_made_once_and_never_deleted_with_something_in_it(east: Any, west: Any) -> None:
    """Create, put and delete race through both gateways; an object that was acknowledged keeps its bucket."""
    for number in range(ROUNDS):
        name = f"contended-{number}"
        codes = race(
            partial(code_of, east.create_bucket, Bucket=name),
            partial(code_of, west.create_bucket, Bucket=name),
        )
        assert "" in codes
        assert set(codes) <= {"", "BucketAlreadyOwnedByYou"}
        put, deleted = race(
            partial(code_of, east.put_object, Bucket=name, Key="k", Body=b"x"),
            partial(code_of, west.delete_bucket, Bucket=name),
        )
        assert (put, deleted) in {("", "BucketNotEmpty"), ("NoSuchBucket", "")}
        for client in (east, west):
            assert code_of(client.head_object, Bucket=name, Key="k") == ("" if put == "" else "404")


class Account:
    """Writers through both gateways, each key once, that remember what was acknowledged."""

    def __init__(self, bucket: str, *clients: Any, threads_each: int = 2) -> None:
        self.acknowledged: dict[str, int] = {}
        self.refused: list[BaseException] = []
        self._bucket = bucket
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number, clients[number % len(clients)]))
            for number in range(threads_each * len(clients))
        ]

    def __enter__(self) -> Account:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a request hung"

    def wait_for_more(self, count: int) -> None:
        """Until this many more were acknowledged."""
        goal = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= goal, WAIT_S, "acknowledging")

    def _write(self, number: int, client: Any) -> None:
        for turn in range(1_000_000):
            if self._stop.is_set():
                return
            key, size = f"{number}-{turn}", SIZES[turn % len(SIZES)]
            try:
                client.put_object(Bucket=self._bucket, Key=key, Body=body_of(key, size))
                self.acknowledged[key] = size
            except (ClientError, BotoCoreError) as error:
                self.refused.append(error)
                time.sleep(0.05)


def verify(account: Account, bucket: str, client: Any) -> None:
    """Everything acknowledged reads back whole, and is listed."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    listed = {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", ())}
    for key, size in account.acknowledged.items():
        assert listed[key] == size
        assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == body_of(key, size)


def test_a_killed_gateway_loses_nothing(hosts: tuple[Hosts, Gateway, Gateway], east: Any) -> None:
    """kill -9 of a host's gateway, workers and all, while clients write through both: the other goes on, and has
    everything that either had acknowledged. Multipart uploads that the dead one took parts of are completed."""
    running = hosts[0]
    third = running.start_gateway("south")
    south = third.client()
    east.create_bucket(Bucket="killed")
    named = {"Bucket": "killed", "Key": "open", "UploadId": ""}
    named["UploadId"] = south.create_multipart_upload(Bucket="killed", Key="open")["UploadId"]
    part = {"PartNumber": 1, "ETag": south.upload_part(**named, PartNumber=1, Body=body_of("p", 2 << 20))["ETag"]}
    with Account("killed", east, south) as account:
        account.wait_for_more(40)
        for pid in (third.process.pid, *third.workers()):
            os.kill(pid, signal.SIGKILL)
        account.wait_for_more(40)
    assert account.refused
    verify(account, "killed", east)
    east.complete_multipart_upload(**named, MultipartUpload={"Parts": [part]})
    assert east.get_object(Bucket="killed", Key="open")["Body"].read() == body_of("p", 2 << 20)
    again = running.start_gateway("south-again")
    verify(account, "killed", again.client())


def resident_bytes(pid: int) -> int:
    """Of a process."""
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


@pytest.mark.parametrize("how", ["stalled", "stopped"])
def test_a_database_that_is_away(hosts: tuple[Hosts, Gateway, Gateway], east: Any, west: Any, how: str) -> None:
    """For ten seconds nothing answers (every process of the server is stopped by SIGSTOP) or nobody listens: reads and
    writes get 503 with Retry-After, /-/ready is 503, /-/healthy stays, no worker dies or grows, and all comes back by
    itself, with everything that was acknowledged and no more gateways or sessions than before."""
    running, one, other = hosts
    bucket = f"away-{how}"
    east.create_bucket(Bucket=bucket)
    east.put_object(Bucket=bucket, Key="kept", Body=b"kept")
    workers = [*one.workers(), *other.workers()]
    before = {pid: resident_bytes(pid) for pid in workers}
    descriptors = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in workers}
    with Account(bucket, east, west, threads_each=12) as account:
        account.wait_for_more(20)
        took_away = take_away(running, how)
        wait_until(lambda: one.ready() == other.ready() == 503, WAIT_S, "being unready without a database")
        with ThreadPoolExecutor(4) as asking:
            refusals = [asking.submit(refused_by, c.get_object, Bucket=bucket, Key="kept") for c in (east, west)]
            refusals += [
                asking.submit(refused_by, c.put_object, Bucket=bucket, Key="new", Body=b"x") for c in (east, west)
            ]
        for status, headers in (refusal.result() for refusal in refusals):
            assert status == 503
            assert int(headers["retry-after"]) >= 1
        time.sleep(max(0.0, AWAY_S - (time.monotonic() - took_away)))  # what is tested is that it is away for long
        grown = {pid: resident_bytes(pid) - before[pid] for pid in workers}
        bring_back(running, how)
        wait_until(lambda: one.ready() == other.ready() == 200, WAIT_S, "being ready again")
        account.wait_for_more(20)
    assert all(growth < RSS_GROWTH_BYTES_MAX for growth in grown.values()), grown
    assert [*one.workers(), *other.workers()] == workers, "a worker died of it"
    assert all(len(os.listdir(f"/proc/{pid}/fd")) <= descriptors[pid] + 40 for pid in workers)
    verify(account, bucket, west)
    assert west.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"kept"
    for refusal in account.refused:
        if isinstance(refusal, ClientError):
            assert refusal.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def refused_by(call: Callable[..., Any], **arguments: Any) -> tuple[int, dict[str, str]]:
    """The status and the headers of a refusal."""
    with pytest.raises(ClientError) as refused:
        call(**arguments)
    answer = refused.value.response["ResponseMetadata"]
    return answer["HTTPStatusCode"], answer["HTTPHeaders"]


def take_away(running: Hosts, how: str) -> float:
    """→ when."""
    if how == "stopped":
        running.database.end(signal.SIGQUIT)
    else:
        for pid in server_processes(running.database):
            os.kill(pid, signal.SIGSTOP)
    return time.monotonic()


def bring_back(running: Hosts, how: str) -> None:
    """As it was."""
    if how == "stopped":
        running.database.start()
    else:
        for pid in server_processes(running.database):
            os.kill(pid, signal.SIGCONT)
