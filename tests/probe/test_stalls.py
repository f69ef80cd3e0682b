"""Workers that sleep past their lease, clients that are slow for minutes, stops while requests are under way."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.probe.conftest import FAST_SWEEP
from tests.probe.load import body_of
from tests.probe.server import Server
from tests.probe.slow import Exchange, presign
from tests.probe.test_restart_and_kill import SWEEP_WAIT_S, leftovers
from tests.probe.waiting import wait_until

BUCKET = "stalls"
SIZE = 24 << 20
HALF = SIZE // 2


def session_states(server: Server) -> list[str]:
    """Of all write sessions on record."""
    with closing(sqlite3.connect(f"file:{server.data}/metadata/metadata.db?mode=ro", uri=True)) as database:
        return [state for (state,) in database.execute("SELECT state FROM write_sessions")]


@pytest.fixture
def one_worker(tmp_path: Path) -> Server:
    """With one gateway, so that a request is known to be in it."""
    return Server(tmp_path / "frost", FAST_SWEEP, "--workers", "1")


@pytest.mark.timeout(200)
def test_a_worker_that_slept_past_its_lease_commits_nothing(one_worker: Server) -> None:
    """What it was writing fails and is swept; what it had acknowledged stays; it works again by itself."""
    server = one_worker
    server.start()
    try:
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="before", Body=body_of("before", SIZE))
        body = body_of("late", SIZE)
        with Exchange(presign(server, "put_object", BUCKET, "late"), "PUT", SIZE) as late:
            late.send(body[:HALF])
            (worker,) = server.pids("gateway")
            os.kill(worker, signal.SIGSTOP)
            try:
                wait_until(lambda: "fenced" in session_states(server), 60, "fencing")
            finally:
                os.kill(worker, signal.SIGCONT)
            late.send(body[HALF:])
            assert late.status() == 503
        server.wait_ready()
        assert server.pids("gateway") == [worker]
        listed = client.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [entry["Key"] for entry in listed] == ["before"]
        assert client.get_object(Bucket=BUCKET, Key="before")["Body"].read() == body_of("before", SIZE)
        client.put_object(Bucket=BUCKET, Key="after", Body=body_of("after", SIZE))
        wait_until(lambda: len(leftovers(server)) == 2 * 2 * 3, SWEEP_WAIT_S, "sweeping what was late")
        assert client.get_object(Bucket=BUCKET, Key="after")["Body"].read() == body_of("after", SIZE)
    finally:
        server.stop()


@pytest.mark.timeout(200)
def test_a_slow_reader_keeps_what_was_deleted_under_it(server: Server) -> None:
    """For many leases and sweeps; then it goes. A second reader, younger than the delete, gets nothing."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    body = body_of("old", SIZE)
    client.put_object(Bucket=BUCKET, Key="old", Body=body)
    client.put_object(Bucket=BUCKET, Key="new", Body=body_of("new", SIZE))
    with Exchange(presign(server, "get_object", BUCKET, "old"), "GET") as slow:
        assert slow.status() == 200
        got = slow.read(1 << 20)
        client.delete_object(Bucket=BUCKET, Key="old")
        for _ in range(12):
            time.sleep(FAST_SWEEP["lease_ttl_s"] / 2)  # the pace of the client, not a wait for anything
            got += slow.read(1 << 20)
        got += slow.read()
        assert got == body
    wait_until(lambda: len(leftovers(server)) == 2 * 3, SWEEP_WAIT_S, "sweeping after the reader")
    assert client.get_object(Bucket=BUCKET, Key="new")["Body"].read() == body_of("new", SIZE)


@pytest.mark.timeout(200)
def test_nothing_is_read_for_a_reader_that_went_away(one_worker: Server) -> None:
    """A client that hangs up in the middle of a large object costs no more reading than was under way."""
    server = one_worker
    server.start()
    try:
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        body = body_of("large", SIZE)
        upload = client.create_multipart_upload(Bucket=BUCKET, Key="large")["UploadId"]
        parts = [
            {
                "PartNumber": number,
                "ETag": client.upload_part(Bucket=BUCKET, Key="large", UploadId=upload, PartNumber=number, Body=body)[
                    "ETag"
                ],
            }
            for number in range(1, 7)
        ]
        client.complete_multipart_upload(Bucket=BUCKET, Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
        (worker,) = server.pids("gateway")
        url = presign(server, "get_object", BUCKET, "large")
        before = bytes_read(server)
        for _ in range(10):
            with Exchange(url, "GET") as reader:
                assert reader.status() == 200
                reader.read(100_000)
        assert client.get_object(Bucket=BUCKET, Key="large", Range="bytes=0-9")["Body"].read() == body[:10]
        time.sleep(2)  # long enough to read everything, if somebody did
        assert bytes_read(server) - before < 6 * SIZE
        assert server.pids("gateway") == [worker]
        assert "Traceback" not in server.log.read_text()
    finally:
        server.stop()


def bytes_read(server: Server) -> int:
    """By the system calls of all datanodes (proc(5), rchar)."""
    lines = [Path(f"/proc/{pid}/io").read_text().splitlines() for pid in server.pids("datanode")]
    return sum(int(line.split()[1]) for found in lines for line in found if line.startswith("rchar"))


@pytest.mark.timeout(200)
def test_a_stop_waits_for_what_is_under_way(server: Server) -> None:
    """An upload and a download that go on slowly are finished, and what was put is there after a start."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    body = body_of("old", SIZE)
    client.put_object(Bucket=BUCKET, Key="old", Body=body)
    late = body_of("late", SIZE)
    download = Exchange(presign(server, "get_object", BUCKET, "old"), "GET")
    with Exchange(presign(server, "put_object", BUCKET, "late"), "PUT", SIZE) as upload, download:
        assert download.status() == 200
        got = download.read(1 << 20)
        upload.send(late[:HALF])
        statuses: list[int] = []
        stopping = threading.Thread(target=lambda: statuses.append(server.stop()))
        stopping.start()
        wait_until(lambda: not server.ready(), 60, "refusing new requests")
        for start in range(HALF, SIZE, 1 << 20):
            upload.send(late[start : start + (1 << 20)])
            got += download.read(1 << 19)
            time.sleep(0.1)  # a client's pace
        assert upload.status() == 200
        got += download.read()
    stopping.join(60)
    assert statuses == [0]
    assert got == body
    server.start()
    assert server.client().get_object(Bucket=BUCKET, Key="late")["Body"].read() == late


@pytest.mark.timeout(200)
def test_a_killed_supervisor_is_replaced_at_once(server: Server) -> None:
    """Also while a client holds a request open: no stale lock, socket or port is in the way of the next start."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="kept", Body=body_of("kept", SIZE))
    with Exchange(presign(server, "put_object", BUCKET, "never"), "PUT", SIZE) as upload:
        upload.send(body_of("never", SIZE)[:HALF])
        server.kill_supervisor()
        began_s = time.monotonic()
        server.start()
        took_s = time.monotonic() - began_s
    print(f"ready again {took_s:.1f} s after the supervisor was killed")
    client = server.client()
    assert client.get_object(Bucket=BUCKET, Key="kept")["Body"].read() == body_of("kept", SIZE)
    assert "Contents" in client.list_objects_v2(Bucket=BUCKET)
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["kept"]
    wait_until(lambda: len(leftovers(server)) == 2 * 3, SWEEP_WAIT_S, "sweeping what was never finished")
