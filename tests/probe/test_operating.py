"""What an operator does, with real processes and the real command line: looks, scrubs, repairs, drains, adds a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.probe.load import body_of
from tests.probe.roles import CREDENTIALS, FROSTBYTE, load_json, run_command, running_role, succeed, wait_for_nodes
from tests.probe.server import Server
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import damage_chunk, list_all_chunks, list_chunks, remove_chunk

BUCKET = "operated"
OBJECTS = 60
SIZE = 100_000
WAIT_S = 60.0
QUICK = {"lease_ttl_s": 3, "survey_interval_s": 2, "surplus_age_s": 1}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Four datanodes, filled."""
    running = Server(tmp_path / "frost", QUICK, "--workers", "1", "--datanodes", "4")
    try:
        running.start()
        wait_for_nodes(running.data, 4)
        client = running.client()
        client.create_bucket(Bucket=BUCKET)
        for number in range(OBJECTS):
            client.put_object(Bucket=BUCKET, Key=f"k{number}", Body=body_of(f"k{number}", SIZE))
        client.put_object(Bucket=BUCKET, Key="small", Body=b"x")
        yield running
    finally:
        running.stop()


def status(server: Server) -> Any:
    """As programs read it."""
    return load_json("status", "--data", server.data)


def wait_until_well(server: Server) -> None:
    """A walk that knows all objects has ended, and all pieces are there."""

    def is_well() -> bool:
        found = status(server)
        return bool(found["verdict"] == "well" and found["survey"]["chunks"] == OBJECTS)

    wait_until(is_well, WAIT_S, "being well")


def verify_all(server: Server) -> None:
    """Every object reads back."""
    client = server.client()
    for number in range(OBJECTS):
        body = client.get_object(Bucket=BUCKET, Key=f"k{number}")["Body"].read()
        assert body == body_of(f"k{number}", SIZE)


def examine(server: Server, key: str, *flags: str) -> Any:
    """`frostbyte object health`."""
    return load_json("object", "health", f"s3://{BUCKET}/{key}", "--data", server.data, *flags)


@pytest.mark.timeout(240)
def test_rot_is_found_by_a_scrub_told_and_mended(server: Server) -> None:
    """One flipped bit: the object is degraded as soon as it is looked at, the scrub finds it, repair makes it good."""
    at = ("--data", server.data)
    wait_until_well(server)
    healthy = examine(server, "k0")
    assert (healthy["health"], healthy["pieces"], healthy["losses"]["nodes"]) == ("healthy", {"good": 2}, 1)
    assert examine(server, "small")["blobs"] == {"inline": 1}
    assert "there is no object" in run_command("object", "health", f"s3://{BUCKET}/none", *at).stderr

    victim = list_chunks(server.data / "datanode-1")[0]
    damage_chunk(server.data / "datanode-1", victim, 100)
    said = succeed("scrub", "--watch", *at)
    assert "1 piece damaged" in said
    assert said.count(" pieces read") == 4
    wait_until_well(server)
    mended = status(server)
    assert mended["survey"]["repaired_pieces"] >= 1
    assert all(node["oldest_verified_ms"] for node in mended["nodes"])
    assert run_command("status", "--check", *at).returncode == 0
    verified = [examine(server, f"k{number}", "--verify") for number in range(3)]
    assert all(it["health"] == "healthy" and it["unverified"] == 0 for it in verified)
    verify_all(server)
    assert run_command("doctor", *at).returncode == 0


@pytest.mark.timeout(240)
def test_a_node_is_drained_until_it_is_safe_to_switch_off(server: Server) -> None:
    """Then it is gone, and nothing is missed; a node that is up is not removed."""
    at = ("--data", server.data)
    wait_until_well(server)
    refused = run_command("node", "remove", "2", *at)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "drain it first" in refused.stderr
    said = succeed("node", "drain", "2", "--watch", *at)
    assert "node 2 is draining" in said
    assert said.splitlines()[-1] == "Node 2 is gone: nothing needs it, it is safe to switch it off."
    succeed("node", "remove", "2", *at)
    assert [node["state"] for node in load_json("node", "list", *at)] == ["up", "gone", "up", "up"]
    verify_all(server)
    wait_until_well(server)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_node_that_joins_gets_its_share(server: Server, tmp_path: Path) -> None:
    """Of what is there already; then sweeps and repairs find nothing to do."""
    at = ("--data", server.data)
    wait_until_well(server)
    config = tmp_path / "fifth.json"
    config.write_text(json.dumps({**load_json("node", "add", *at), "reserve_bytes": 0}))
    arguments = ("datanode", "--data", tmp_path / "fifth", "--config", config)
    with running_role(tmp_path / "fifth.log", "registered with", *arguments):
        wait_for_nodes(server.data, 5)
        said = succeed("rebalance", "--watch", *at)
        assert "moved" in said.splitlines()[-1]

        def are_even() -> bool:
            found = status(server)
            shares = [node["named_pieces"] for node in found["survey"]["nodes"]]
            return found["verdict"] == "well" and len(shares) == 5 and max(shares) <= 1.1 * min(shares)

        wait_until(are_even, WAIT_S, "even shares")
        wait_until(lambda: not status(server)["survey"]["surplus_pieces"], WAIT_S, "the end of surplus")
        verify_all(server)
        assert succeed("sweep", "--watch", *at).splitlines()[-1].startswith("sweep: ")
        assert "repair: 0 pieces made." in succeed("repair", "--watch", *at)
        roots = {path.parent for path in [*server.data.parent.glob("**/chunks"), *(tmp_path / "fifth").glob("chunks")]}
        assert len(list_all_chunks(roots)) == 2 * OBJECTS


@pytest.mark.timeout(240)
def test_ctrl_c_ends_the_watching_and_not_the_scrub(server: Server) -> None:
    """Exit status 0, and the pass goes on."""
    # A shell's background job ignores the signal, and so would what it starts.
    command = ["env", "--default-signal=INT", *FROSTBYTE, "scrub", "--watch", "--pace", "65536"]
    command += ["--data", str(server.data)]
    with subprocess.Popen(command, env={**os.environ, **CREDENTIALS}, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "at 64.0 KiB a second" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        said = watching.stdout.read()
        assert watching.wait(WAIT_S) == 0
    assert said.endswith("no longer watched; the scrub goes on\n")
    assert all(it["status"]["is_running"] for it in status(server)["scrub"])
    told = load_json("scrub", "--no-begin", "--pace", str(1 << 30), "--data", server.data)
    assert [it["status"]["pace_bytes_per_s"] for it in told] == [1 << 30] * 4
    wait_until(lambda: not any(it["status"]["is_running"] for it in status(server)["scrub"]), WAIT_S, "its end")


@pytest.mark.timeout(240)
def test_objects_that_are_lost_are_told_by_name(server: Server) -> None:
    """Every replica of one chunk is gone: exit status 2, and the object's name; others are well."""
    at = ("--data", server.data)
    wait_until_well(server)
    shown = examine(server, "k7", "--chunks")["shown_chunks"][0]
    stored = list_all_chunks(server.data.glob("datanode-*"))
    removed = [(root, of) for root, of in stored if of.blob_id.hex() == shown["blob_id"]]
    assert len(removed) == 2
    for root, of in removed:
        remove_chunk(root, of)
    succeed("repair", "--watch", *at)
    checked = run_command("status", "--check", *at)
    assert checked.returncode == 2
    assert f"lost: s3://{BUCKET}/k7\n" in checked.stdout
    found = status(server)
    assert (found["verdict"], found["survey"]["lost"]) == ("lost", 1)
    assert found["survey"]["affected"] == [
        {"state": "lost", "bucket": BUCKET, "object_key": "k7", "version_id": "null", "upload_id": ""}
    ]
    assert run_command("object", "health", f"s3://{BUCKET}/k7", "--check", *at).returncode == 2
    server.client().delete_object(Bucket=BUCKET, Key="k7")
    succeed("repair", "--watch", *at)
    assert run_command("status", "--check", *at).returncode == 0
