"""Gateways write into the datanodes' directories, and one of them dies: nothing is lost, and no draft stays."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.probe.killing import kill_under_load
from tests.probe.load import Writers, body_of
from tests.probe.server import Server
from tests.probe.waiting import wait_until

SIZES = (2 << 20, 9 << 20, 20_000)
SIZE = 12 << 20
SENT = 3 << 20
SETTLE_S = 60.0
LENT = re.compile(r"[0-9a-f]{40}\.[0-9a-f]{32}\Z")


def drafts(server: Server) -> list[Path]:
    """What lies in tmp/ of all datanodes and was lent to a gateway."""
    return [path for path in server.data.glob("datanode-*/tmp/*") if LENT.match(path.name)]


@contextmanager
def upload_under_way(server: Server, data: bytes) -> Iterator[http.client.HTTPConnection]:
    """A PUT of `data` of which the beginning was sent, and whose first chunk is being written on two nodes."""
    url = server.client(signature_version="s3v4").generate_presigned_url(
        "put_object", Params={"Bucket": "near", "Key": "slow"}
    )
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.putrequest("PUT", urlsplit(url).path + "?" + urlsplit(url).query)
    connection.putheader("Content-Length", str(len(data)))
    connection.endheaders()
    connection.send(data[:SENT])
    try:
        wait_until(lambda: len(drafts(server)) == 2, SETTLE_S, "two drafts")
        yield connection
    finally:
        connection.close()


def test_drafts_of_a_killed_gateway_go_at_once(server: Server) -> None:
    """From datanodes that go on running, and from under no other gateway."""
    server.client().create_bucket(Bucket="near")
    datanodes = set(server.pids("datanode"))
    with upload_under_way(server, body_of("slow", SIZE)):
        for pid in server.pids("gateway"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not drafts(server), SETTLE_S, "the end of the drafts")
    assert set(server.pids("datanode")) == datanodes
    wait_until(lambda: len(server.pids("gateway")) == 2, SETTLE_S, "new gateways")
    server.wait_ready()
    client = server.client()
    assert "Contents" not in client.list_objects_v2(Bucket="near")
    client.put_object(Bucket="near", Key="next", Body=body_of("next", SIZE))
    assert client.get_object(Bucket="near", Key="next")["Body"].read() == body_of("next", SIZE)


def test_a_datanode_that_dies_with_a_draft(server: Server) -> None:
    """The write goes on elsewhere, and the next start of the datanode empties its tmp/."""
    client = server.client()
    client.create_bucket(Bucket="near")
    data = body_of("slow", SIZE)
    with upload_under_way(server, data) as connection:
        (victim, *_) = drafts(server)
        directory = victim.parents[1]
        (index,) = (
            index
            for index, pid in enumerate(server.pids("datanode"))
            if str(directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        killed = server.kill("datanode", index)
        wait_until(lambda: len(set(server.pids("datanode")) - {killed}) == 3, SETTLE_S, "a new datanode")
        wait_until(lambda: not victim.exists(), SETTLE_S, "the end of its draft")
        connection.send(data[SENT:])
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
    assert client.get_object(Bucket="near", Key="slow")["Body"].read() == data
    assert not drafts(server)


@pytest.mark.parametrize("role", ["gateway", "datanode"])
def test_kill_under_load(server: Server, role: str) -> None:
    """Every acknowledged object is whole, and what was acknowledged had been written directly."""
    server.client().create_bucket(Bucket="load")
    writers = Writers(server, "load", SIZES)
    kill_under_load(server, role, writers, "load", 6, lambda: wait_until(lambda: drafts(server), SETTLE_S, "a draft"))
    wait_until(lambda: not drafts(server), SETTLE_S, "the end of the drafts")


def test_a_client_that_goes_leaves_no_draft(server: Server) -> None:
    """In the middle of a chunk."""
    server.client().create_bucket(Bucket="near")
    with upload_under_way(server, body_of("slow", SIZE)) as connection:
        assert connection.sock is not None
        connection.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not drafts(server), SETTLE_S, "the end of the drafts")
    assert "Contents" not in server.client().list_objects_v2(Bucket="near")
