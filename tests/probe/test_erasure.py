"""An erasure-coded bucket over real processes: datanodes are killed and stalled until too few are left, and come back.
What is read is right by its SHA-256, or there is an error."""

from __future__ import annotations

import hashlib
import os
import random
import re
import signal
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.probe.conftest import FAST_SWEEP, running_datanodes
from tests.probe.load import body_of
from tests.probe.machines import Machines
from tests.probe.roles import load_json, succeed, wait_for_nodes
from tests.probe.server import Server
from tests.probe.slow import Exchange, presign
from tests.probe.waiting import wait_until

BUCKET = "coded"
DATANODES = 7
REDUNDANCY = "ec:4+2"
MIB = 1 << 20
SIZES = {"large": 40 * MIB, "odd": 8 * MIB + 1, "medium": 300_001, "small": 100_000, "inline": 1_000}
PARTS = [9 * MIB, 5 * MIB, 70_000]
RANGES = 12
CHUNK_BYTES = 8 * MIB
SMALL_CHUNK_BYTES = MIB
SMALL_CHUNK_SIZES = {**SIZES, "large": 10 * MIB, "odd": MIB + 1}
"""as many chunks, and more, of a cluster whose chunks are small"""
UP_WAIT_S = 60.0
REWRITE_WAIT_S = 90.0


def parts_of(key: str) -> list[bytes]:
    """Of the multipart object."""
    return [body_of(f"{key}-{number}", size) for number, size in enumerate(PARTS)]


def make_bucket(client: Any, data: Path) -> None:
    """In ec:4+2, in a cluster that has replicas by default."""
    client.create_bucket(Bucket=BUCKET)
    succeed("bucket", "redundancy", BUCKET, REDUNDANCY, "--data", data)


def put_everything(client: Any, sizes: Mapping[str, int] = SIZES) -> dict[str, bytes]:
    """Objects of all kinds, by their keys."""
    bodies = {key: body_of(key, size) for key, size in sizes.items()}
    for key, body in bodies.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=body)
    named = {"Bucket": BUCKET, "Key": "parts"}
    upload = client.create_multipart_upload(**named)["UploadId"]
    done = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(**named, UploadId=upload, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate(parts_of("parts"), 1)
    ]
    client.complete_multipart_upload(**named, UploadId=upload, MultipartUpload={"Parts": done})
    client.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/large")
    return {**bodies, "parts": b"".join(parts_of("parts")), "copy": bodies["large"]}


def sha256(body: bytes) -> str:
    """For messages that stay short."""
    return hashlib.sha256(body).hexdigest()


def check_everything(client: Any, bodies: dict[str, bytes], seed: int) -> None:
    """Every object whole, by ranges and by its parts."""
    for key, body in bodies.items():
        assert sha256(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) == sha256(body), key
    chance = random.Random(seed)
    for key in ("large", "odd", "parts", "copy"):
        for _ in range(RANGES):
            start = chance.randrange(len(bodies[key]))
            end = min(len(bodies[key]), start + chance.choice([1, 70_000, 3 * MIB])) - 1
            got = client.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={start}-{end}")["Body"].read()
            assert sha256(got) == sha256(bodies[key][start : end + 1]), (key, start, end)
    for number, part in enumerate(parts_of("parts"), 1):
        got = client.get_object(Bucket=BUCKET, Key="parts", PartNumber=number)["Body"].read()
        assert sha256(got) == sha256(part), number


def count_refused(client: Any, bodies: dict[str, bytes], chunk_bytes: int = CHUNK_BYTES) -> int:
    """Reads of chunks of the large object that get 503. What comes of the others, whole or cut off, is right."""
    refused = 0
    body = bodies["large"]
    for start in range(0, len(body), chunk_bytes):
        got = b""
        try:
            answer = client.get_object(Bucket=BUCKET, Key="large", Range=f"bytes={start}-{start + chunk_bytes - 1}")
            for block in answer["Body"].iter_chunks(64 << 10):
                got += block
            assert len(got) == chunk_bytes, "a short body that ends cleanly"
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
            refused += 1
        except BotoCoreError:
            pass  # cut off in the middle
        assert body[start:].startswith(got)
    return refused


def read_counts(port: int) -> dict[str, float]:
    """Bytes of reads so far: `stored whole`, `stored degraded`, `served whole`, `served degraded`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.findall(r'^frostbyte_read_(\w+)_bytes_total\{kind="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {f"{what} {kind}": float(value) for what, kind, value in found}


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Processes that do nothing until the end."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(300)
def test_killed_datanodes(tmp_path: Path) -> None:
    """Two of seven: nothing is missing. A third: 503, until one of them is started again."""
    with ExitStack() as running:
        machines = Machines(tmp_path, running, settings={"chunk_size_bytes": SMALL_CHUNK_BYTES})
        machines.start_records_and_master()
        for number in range(1, DATANODES + 1):
            machines.start_datanode(number)
        machines.wait_until_up(DATANODES)
        client = machines.start_gateway()
        make_bucket(client, machines.main)
        bodies = put_everything(client, SMALL_CHUNK_SIZES)
        check_everything(client, bodies, 1)
        victims = random.Random(3).sample(range(1, DATANODES + 1), 3)
        for number in victims[:2]:
            machines.datanodes[number].kill()
        check_everything(client, bodies, 2)
        machines.datanodes[victims[2]].kill()
        assert count_refused(client, bodies, SMALL_CHUNK_BYTES) > 0
        machines.start_datanode(victims[0])
        wait_until(lambda: count_refused(client, bodies, SMALL_CHUNK_BYTES) == 0, UP_WAIT_S, "reading everything again")
        check_everything(client, bodies, 3)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """`frostbyte up` with one worker, which asks the datanodes for every byte."""
    settings = {**FAST_SWEEP, "local_reads": False}
    with running_datanodes(tmp_path / "frost", settings, DATANODES) as running:
        yield running


@pytest.mark.long
@pytest.mark.timeout(300)
def test_stalled_datanodes(server: Server) -> None:
    """Two that do nothing are done without; with a third there is 503 and nothing wrong; awake they are used again."""
    client = server.client()
    make_bucket(client, server.data)
    bodies = put_everything(client)
    check_everything(client, bodies, 1)
    whole = read_counts(server.port)
    assert whole["stored whole"] >= whole["served whole"] > 0
    pids = random.Random(4).sample(server.pids("datanode"), 3)
    with stopped(pids[:2]):
        check_everything(client, bodies, 2)
        counts = read_counts(server.port)
        assert counts["served degraded"] > 0
        print("bytes read per byte served, degraded:", counts["stored degraded"] / counts["served degraded"])
        with stopped(pids[2:]):
            assert count_refused(client, bodies) > 0
        wait_until(lambda: count_refused(client, bodies) == 0, UP_WAIT_S, "reading everything again")
    check_everything(client, bodies, 3)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_killed_datanodes_that_are_started_again(server: Server) -> None:
    """By the supervisor, while reads go on: nothing is wrong meanwhile, and none of it is lost."""
    client = server.client()
    make_bucket(client, server.data)
    bodies = put_everything(client)
    for turn in range(3):
        for pid in random.Random(turn).sample(server.pids("datanode"), 2):
            os.kill(pid, signal.SIGKILL)
        check_everything(client, bodies, turn)
        wait_for_nodes(server.data, DATANODES)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_bucket_that_is_laid_out_anew_while_it_is_read(server: Server) -> None:
    """From replicas to fragments: every read is right meanwhile, also one that began before and ends after the old
    pieces were due to go; then two datanodes may be missing."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    bodies = put_everything(client)
    chance = random.Random(5)

    def is_laid_out() -> bool:
        key = chance.choice(list(bodies))
        assert sha256(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) == sha256(bodies[key]), key
        return bool(load_json("bucket", "rewrite", BUCKET, "--data", server.data)["left"] == 0)

    with Exchange(presign(server, "get_object", BUCKET, "large"), "GET") as slow:
        assert slow.status() == 200
        got = slow.read(MIB)
        succeed("bucket", "redundancy", BUCKET, REDUNDANCY, "--data", server.data)
        wait_until(is_laid_out, REWRITE_WAIT_S, "laying out anew")
        check_everything(client, bodies, 1)
        got += slow.read()
    assert sha256(got) == sha256(bodies["large"])
    with stopped(random.Random(6).sample(server.pids("datanode"), 2)):
        check_everything(client, bodies, 2)
    assert "Traceback" not in server.log.read_text()
