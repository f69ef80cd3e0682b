"""Objects of one chunk by the short way, while processes die under it: what was acknowledged is there, and no more."""

from __future__ import annotations

import http.client
import os
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from tests.probe.killing import kill_and_wait_for_another, kill_under_load
from tests.probe.load import Put, Writers, verify
from tests.probe.server import Server
from tests.probe.test_restart_and_kill import leftovers, stored_chunks
from tests.probe.waiting import wait_until

SIZES = (64 << 10, 1 << 20, 20_000, 200_001)
SETTLE_S = 60.0
PARTIAL = 100_000


class PlainWriters(Writers):
    """Presigned PUTs one after the other on a connection of each thread, as the short way likes them."""

    def open(self) -> Put:
        """Head and body leave apart."""
        connection = connect(self._server)
        client = self._server.client(signature_version="s3v4")

        def put(object_key: str, body: bytes) -> None:
            target = presign(client, self._bucket, object_key)
            try:
                connection.request("PUT", target, body)
                answer = connection.getresponse()
                document = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                raise
            if answer.status != 200:
                raise http.client.HTTPException(f"{answer.status} {document[:200]!r}")

        return put


def connect(server: Server) -> http.client.HTTPConnection:
    """One that is opened again when it was closed."""
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)


def presign(client: object, bucket: str, object_key: str) -> str:
    """The target of a PUT."""
    parameters = {"Bucket": bucket, "Key": object_key}
    url = urlsplit(client.generate_presigned_url("put_object", Params=parameters))  # type: ignore[attr-defined]
    return f"{url.path}?{url.query}"


@pytest.mark.parametrize("role", ["datanode", "gateway", "metadata"])
def test_kill_under_load(server: Server, role: str) -> None:
    """Every acknowledged object is whole, and what was not acknowledged is whole or not there."""
    server.client().create_bucket(Bucket="load")
    kill_under_load(server, role, PlainWriters(server, "load", SIZES), "load", 12)


def test_one_of_two_replicas_is_away(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two nodes, two copies, one node killed and not replaced at once: refused or whole, never one copy alone."""
    server = Server(tmp_path_factory.mktemp("two"), None, "--datanodes", "2", "--workers", "1")
    try:
        server.start()
        client = server.client()
        client.create_bucket(Bucket="load")
        with PlainWriters(server, "load", SIZES, threads=2) as writers:
            writers.wait_for_acknowledged(6)
            kill_and_wait_for_another(server, "datanode")
            server.wait_ready()
            writers.wait_for_acknowledged(6)
        verify(client, "load", writers)
        wait_until(lambda: len(stored_chunks(server)) >= len(writers.acknowledged), SETTLE_S, "a chunk of each object")
    finally:
        server.stop()


def test_a_client_that_goes_leaves_nothing(server: Server) -> None:
    """In the middle of a body, after one that was served; what it had sent is nowhere."""
    client = server.client(signature_version="s3v4")
    client.create_bucket(Bucket="load")
    connection = connect(server)
    for size in (65_536, 200_001):
        connection.request("PUT", presign(client, "load", "served"), os.urandom(size))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.putrequest("PUT", presign(client, "load", "left"))
        connection.putheader("Content-Length", str(size))
        connection.endheaders(os.urandom(size - 1))
        with suppress(OSError):
            connection.close()
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="load")["Contents"]] == ["served"]
    client.delete_object(Bucket="load", Key="served")
    wait_until(lambda: not stored_chunks(server), SETTLE_S, "the end of all chunks")
    assert not [path for path in leftovers(server) if path.parent.name == "tmp"]
