"""kill -9 of every role under load, and plain restarts: nothing acknowledged is lost, no half object is visible."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3.s3.transfer
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.probe.conftest import FAST_SWEEP
from tests.probe.engines import ENGINES, running_server
from tests.probe.killing import kill_under_load
from tests.probe.load import Writers, body_of, verify
from tests.probe.server import Server
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import list_all_chunks

CHUNK_BYTES = 1 << 20
SIZES = (300, 20_000, 200_000, CHUNK_BYTES + 70_000)
BIG_BYTES = 128 << 20
SWEEP_WAIT_S = 60.0


@pytest.fixture(params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Over each engine."""
    with running_server(tmp_path / "frost", request.param, {**FAST_SWEEP, "chunk_size_bytes": CHUNK_BYTES}) as running:
        yield running


def stored_chunks(server: Server) -> set[str]:
    """The ids of all chunks of all datanodes."""
    return {str(of) for _, of in list_all_chunks(server.data.glob("datanode-*"))}


def leftovers(server: Server) -> list[Path]:
    """Whatever lies about on the datanodes beside their identity: chunks, segments, temporary files, quarantine."""
    folders = [it for name in ("chunks", "tmp", "quarantine") for it in server.data.glob(f"datanode-*/{name}")]
    # Path.glob fails where a directory goes while it looks; walk passes over that.
    return [Path(where) / name for folder in folders for where, _, names in os.walk(folder) for name in names]


def test_everything_is_there_after_a_restart(server: Server) -> None:
    """Stop and start: buckets, small and large objects, an open upload."""
    client = server.client()
    client.create_bucket(Bucket="kept")
    for size in SIZES:
        client.put_object(Bucket="kept", Key=f"size-{size}", Body=body_of(f"size-{size}", size), Metadata={"n": "1"})
    upload = client.create_multipart_upload(Bucket="kept", Key="later")["UploadId"]
    part = client.upload_part(Bucket="kept", Key="later", UploadId=upload, PartNumber=1, Body=b"part one")

    assert server.stop() == 0
    server.start()

    client = server.client()
    for size in SIZES:
        got = client.get_object(Bucket="kept", Key=f"size-{size}")
        assert got["Body"].read() == body_of(f"size-{size}", size)
        assert got["Metadata"] == {"n": "1"}
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    client.complete_multipart_upload(Bucket="kept", Key="later", UploadId=upload, MultipartUpload=parts)
    assert client.get_object(Bucket="kept", Key="later")["Body"].read() == b"part one"


@pytest.mark.parametrize("role", ["gateway", "metadata", "datanode", "master"])
def test_kill_of_one_process_under_load(server: Server, role: str) -> None:
    """Requests are in flight when the process dies; it comes back, and every acknowledged object is whole."""
    server.client().create_bucket(Bucket="load")
    kill_under_load(server, role, Writers(server, "load", SIZES), "load", 8)


@pytest.mark.timeout(300)
def test_kill_of_everything_under_load(server: Server) -> None:
    """All processes die at once with requests in flight; after a start all is whole and the rest is swept."""
    client = server.client()
    client.create_bucket(Bucket="load")
    with Writers(server, "load", SIZES) as writers:
        writers.wait_for_acknowledged(20)
        server.kill_everything()
        wait_until(lambda: writers.failures > 0, SWEEP_WAIT_S, "a request that fails")
    server.start()
    client = server.client()
    verify(client, "load", writers)

    for page in client.get_paginator("list_objects_v2").paginate(Bucket="load"):
        targets = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        client.delete_objects(Bucket="load", Delete={"Objects": targets})
    wait_until(lambda: not leftovers(server), SWEEP_WAIT_S, "sweeping")


@pytest.mark.timeout(300)
def test_kill_of_a_datanode_during_a_large_upload(server: Server, tmp_path: Path) -> None:
    """The upload succeeds on the other datanodes, or fails cleanly and leaves nothing."""
    source = tmp_path / "large"
    source.write_bytes(body_of("large", BIG_BYTES))
    client = server.client(retries={"total_max_attempts": 5})
    client.create_bucket(Bucket="large")
    outcome: list[Exception | None] = []
    transfer = boto3.s3.transfer.TransferConfig(multipart_chunksize=16 << 20, max_concurrency=4)

    def upload() -> None:
        try:
            client.upload_file(str(source), "large", "large", Config=transfer)
        except (BotoCoreError, ClientError, boto3.exceptions.S3UploadFailedError) as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = threading.Thread(target=upload)
    thread.start()
    wait_until(lambda: len(stored_chunks(server)) >= 4, 60, "the first chunks")
    assert thread.is_alive(), "the upload was over before the kill"
    server.kill("datanode")
    thread.join(200)
    assert not thread.is_alive()

    if outcome == [None]:
        digest = hashlib.sha256()
        for block in client.get_object(Bucket="large", Key="large")["Body"].iter_chunks(1 << 20):
            digest.update(block)
        assert digest.digest() == hashlib.sha256(source.read_bytes()).digest()
    else:
        assert "Contents" not in client.list_objects_v2(Bucket="large")
        for left in client.list_multipart_uploads(Bucket="large").get("Uploads", []):
            client.abort_multipart_upload(Bucket="large", Key=left["Key"], UploadId=left["UploadId"])
        wait_until(lambda: not leftovers(server), SWEEP_WAIT_S, "sweeping")
