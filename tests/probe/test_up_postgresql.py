"""`frostbyte up` over a real PostgreSQL, as an operator sees it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres_server import PostgresMissingError, PostgresServer, shared_databases
from tests.probe.conftest import FAST_SWEEP
from tests.probe.load import body_of
from tests.probe.roles import load_json, succeed
from tests.probe.server import READY_TIMEOUT_S, Server
from tests.probe.waiting import wait_until

PASSWORD = "hunter2-of-the-database"
SIZES = (300, 200_000, 9 << 20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Not started yet. The database asks for no password, so that any will do."""
    try:
        database = PostgresServer()
    except PostgresMissingError:
        shared_databases()  # which skips or fails, and says why
        pytest.skip("needs a PostgreSQL server of its own")
    dsn = database.dsn().replace("@", f":{PASSWORD}@", 1)
    metadata = {"engine": "postgresql", "dsn": dsn, "connections_max": 4}
    running = Server(tmp_path / "frost", {**FAST_SWEEP, "metadata": metadata}, "--workers", "2")
    try:
        yield running
    finally:
        running.stop()
        database.stop()


def verify(server: Server) -> None:
    """Every object reads back whole."""
    client = server.client()
    for size in SIZES:
        assert client.get_object(Bucket="over-postgresql", Key=f"{size}")["Body"].read() == body_of(f"{size}", size)


def test_up_over_postgresql(server: Server) -> None:
    """No metadata process; the engine and its loss window are told; acknowledged objects outlive a kill of everything;
    the password is in no argument, no log and no file that others may read; every command works beside it."""
    server.start()
    assert server.pids("metadata") == []
    client = server.client()
    client.create_bucket(Bucket="over-postgresql")
    for size in SIZES:
        client.put_object(Bucket="over-postgresql", Key=f"{size}", Body=body_of(f"{size}", size))
    verify(server)

    said = server.log.read_text()
    assert "  metadata in postgresql" in said
    assert "no synchronous standby: a failover loses" in said

    def has_both_writers() -> bool:
        """One worker makes the server ready; the other may still be starting."""
        return len(load_json("status", "--data", server.data)["metadata"]["writers"]) == 2

    wait_until(has_both_writers, READY_TIMEOUT_S, "both workers writing")
    status = load_json("status", "--data", server.data)
    assert (status["metadata"]["engine"], status["metadata"]["answers"]) == ("postgresql", True)
    assert status["metadata"]["buckets"] == 1
    assert [warning for warning in status["warnings"] if "no synchronous standby" in warning]
    assert "PostgreSQL" in status["notes"][0]
    assert [bucket["name"] for bucket in load_json("bucket", "list", "--data", server.data)] == ["over-postgresql"]
    assert len(load_json("node", "list", "--data", server.data)) == 3
    succeed("key", "create", "beside", "--data", server.data)
    assert "whole" in succeed("metadata", "check", "--data", server.data)

    pids = [*server.pids("gateway"), *server.pids("master"), *server.pids("datanode")]
    assert len(pids) == 6
    for pid in pids:
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    server.kill_everything()
    server.start()
    verify(server)
    assert server.stop() == 0
    assert PASSWORD not in server.log.read_text()
    told = [path for path in server.data.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert {path.name for path in told} == {"master.json", "gateway.json"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in told)
