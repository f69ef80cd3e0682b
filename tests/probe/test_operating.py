"""What an operator does, with real processes and the real command line: looks, scrubs, repairs, drains, adds a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
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
GROUPED = pytest.mark.xdist_group("operating")
QUICK = {"lease_ttl_s": 3, "survey_interval_s": 2, "surplus_age_s": 1}


@contextmanager
def running_server(home: Path) -> Iterator[Server]:
    """Four datanodes, filled."""
    running = Server(home, QUICK, "--workers", "1", "--datanodes", "4")
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """For the tests of the group `operating`, each of which leaves it as it was."""
    with running_server(tmp_path_factory.mktemp("operating") / "frost") as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """For one whose nodes will not be the same."""
    with running_server(tmp_path / "frost") as running:
        yield running


def status(server: Server) -> Any:
    """As programs read it."""
    return load_json("status", "--data", server.data)


def wait_until_well(server: Server, chunks: int = OBJECTS) -> None:
    """A walk that knows so many objects has ended, and all pieces are there."""

    def is_well() -> bool:
        found = status(server)
        return bool(found["verdict"] == "well" and found["survey"]["chunks"] == chunks)

    wait_until(is_well, WAIT_S, "being well")


def wait_until_passes(server: Server, *command: str) -> None:
    """A command exits with 0; on a busy machine a report may come late, and its node is called silent for a moment."""
    wait_until(lambda: run_command(*command, "--data", server.data).returncode == 0, WAIT_S, f"{command[0]} passing")


def verify_all(server: Server) -> None:
    """Every object reads back."""
    client = server.client()
    for number in range(OBJECTS):
        body = client.get_object(Bucket=BUCKET, Key=f"k{number}")["Body"].read()
        assert body == body_of(f"k{number}", SIZE)


def examine(server: Server, key: str, *flags: str) -> Any:
    """`frostbyte object health`."""
    return load_json("object", "health", f"s3://{BUCKET}/{key}", "--data", server.data, *flags)


@GROUPED
@pytest.mark.timeout(240)
def test_rot_is_found_by_a_scrub_told_and_mended(server: Server) -> None:
    """One flipped bit: the object is degraded as soon as it is looked at, the scrub finds it, repair makes it good."""
    at = ("--data", server.data)
    wait_until_well(server)
    repaired_before = status(server)["survey"]["repaired_pieces"]
    healthy = examine(server, "k0")
    assert (healthy["health"], healthy["pieces"], healthy["losses"]["nodes"]) == ("healthy", {"good": 2}, 1)
    assert examine(server, "small")["blobs"] == {"inline": 1}
    assert "there is no object" in run_command("object", "health", f"s3://{BUCKET}/none", *at).stderr

    victim = list_chunks(server.data / "datanode-1")[0]
    damage_chunk(server.data / "datanode-1", victim, 100)
    said = succeed("scrub", "--watch", *at)
    assert "1 piece damaged" in said
    assert said.count(" pieces read") == 4

    def is_mended() -> bool:
        """The master hears of the damage, and of what was verified, with the nodes' next reports."""
        found = status(server)
        is_verified = all(node["oldest_verified_ms"] for node in found["nodes"])
        return bool(is_verified and found["survey"]["repaired_pieces"] > repaired_before)

    wait_until(is_mended, WAIT_S, "the repair")
    wait_until_well(server)
    wait_until_passes(server, "status", "--check")
    verified = [examine(server, f"k{number}", "--verify") for number in range(3)]
    assert all(it["health"] == "healthy" and it["unverified"] == 0 for it in verified)
    verify_all(server)
    wait_until_passes(server, "doctor")


@pytest.mark.timeout(240)
def test_a_node_is_drained_until_it_is_safe_to_switch_off(own_server: Server) -> None:
    """Then it is gone, and nothing is missed; a node that is up is not removed."""
    at = ("--data", own_server.data)
    wait_until_well(own_server)
    refused = run_command("node", "remove", "2", *at)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "drain it first" in refused.stderr
    said = succeed("node", "drain", "2", "--watch", *at)
    assert "node 2 is draining" in said
    assert said.splitlines()[-1] == "Node 2 is gone: nothing needs it, it is safe to switch it off."
    succeed("node", "remove", "2", *at)
    verify_all(own_server)
    states = ["up", "gone", "up", "up"]
    wait_until(lambda: [node["state"] for node in load_json("node", "list", *at)] == states, WAIT_S, "all as ordered")
    wait_until_well(own_server)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_node_that_joins_gets_its_share(own_server: Server, tmp_path: Path) -> None:
    """Of what is there already; then sweeps and repairs find nothing to do."""
    at = ("--data", own_server.data)
    wait_until_well(own_server)
    config = tmp_path / "fifth.json"
    config.write_text(json.dumps({**load_json("node", "add", *at), "reserve_bytes": 0}))
    arguments = ("datanode", "--data", tmp_path / "fifth", "--config", config)
    with running_role(tmp_path / "fifth.log", "registered with", *arguments):
        wait_for_nodes(own_server.data, 5)
        said = succeed("rebalance", "--watch", *at)
        assert "moved" in said.splitlines()[-1]

        def are_even() -> bool:
            found = status(own_server)
            shares = [node["named_pieces"] for node in found["survey"]["nodes"]]
            return found["verdict"] == "well" and len(shares) == 5 and max(shares) <= 1.1 * min(shares)

        wait_until(are_even, WAIT_S, "even shares")
        wait_until(lambda: not status(own_server)["survey"]["surplus_pieces"], WAIT_S, "the end of surplus")
        verify_all(own_server)
        assert succeed("sweep", "--watch", *at).splitlines()[-1].startswith("sweep: ")
        assert "repair: 0 pieces made." in succeed("repair", "--watch", *at)
        chunks = [*own_server.data.parent.glob("**/chunks"), *(tmp_path / "fifth").glob("chunks")]
        roots = {path.parent for path in chunks}
        assert len(list_all_chunks(roots)) == 2 * OBJECTS


@GROUPED
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


@GROUPED
@pytest.mark.timeout(240)
def test_objects_that_are_lost_are_told_by_name(server: Server) -> None:
    """Every replica of one chunk is gone: exit status 2, and the object's name; others are well."""
    at = ("--data", server.data)
    server.client().put_object(Bucket=BUCKET, Key="doomed", Body=body_of("doomed", SIZE))
    wait_until_well(server, OBJECTS + 1)
    shown = examine(server, "doomed", "--chunks")["shown_chunks"][0]
    stored = list_all_chunks(server.data.glob("datanode-*"))
    removed = [(root, of) for root, of in stored if of.blob_id.hex() == shown["blob_id"]]
    assert len(removed) == 2
    for root, of in removed:
        remove_chunk(root, of)
    succeed("repair", "--watch", *at)
    checked = run_command("status", "--check", *at)
    assert checked.returncode == 2
    assert f"lost: s3://{BUCKET}/doomed\n" in checked.stdout
    found = status(server)
    assert (found["verdict"], found["survey"]["lost"]) == ("lost", 1)
    assert found["survey"]["affected"] == [
        {"state": "lost", "bucket": BUCKET, "object_key": "doomed", "version_id": "null", "upload_id": ""}
    ]
    assert run_command("object", "health", f"s3://{BUCKET}/doomed", "--check", *at).returncode == 2
    server.client().delete_object(Bucket=BUCKET, Key="doomed")
    succeed("repair", "--watch", *at)
    wait_until_passes(server, "status", "--check")
