"""Disks that lie, fill up or freeze, beneath real processes: a read gives the right bytes or fails, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from storage.base.ids import ChunkId
from tests.probe.conftest import FAST_SWEEP
from tests.probe.load import body_of
from tests.probe.mounts import fill, frozen, is_written_to, small_disk
from tests.probe.roles import load_json, wait_for_nodes
from tests.probe.server import Server
from tests.probe.waiting import wait_until
from tests.storage.chunks.chunk_files import (
    Stored,
    damage_chunk,
    find_chunk,
    list_all_chunks,
    list_chunks,
    read_chunk,
    remove_chunk,
)

BUCKET = "disks"
SIZE = 9 << 20
"""two chunks"""
HEAL_WAIT_S = 90.0
DISK_MIB = 64
METADATA_DISK_MIB = 176
"""its reserve is 128"""


class Replica(NamedTuple):
    """A chunk in a datanode's directory."""

    root: Path
    of: ChunkId

    def edit(self, in_file: Callable[[bytes], bytes], in_segment: Callable[[Stored], tuple[int, bytes]]) -> None:
        """Change its own file as a whole, or the segment that it is in at one place."""
        found = find_chunk(self.root, self.of)
        if found.slot_at is None:
            found.path.write_bytes(in_file(found.path.read_bytes()))
        else:
            at, value = in_segment(found)
            with found.path.open("r+b") as file:
                file.seek(at)
                file.write(value)


def set_length(length: int) -> Callable[[Stored], tuple[int, bytes]]:
    """Another one in its slot."""
    return lambda found: ((found.slot_at or 0) + 12, length.to_bytes(4, "big"))


def flip(replica: Replica) -> None:
    """One bit in the middle."""
    damage_chunk(*replica, find_chunk(*replica).length // 2)


def truncate(replica: Replica) -> None:
    """The end is missing, footer and all; or the slot says so."""
    replica.edit(lambda content: content[: len(content) // 2], set_length(1000))


def empty(replica: Replica) -> None:
    """Nothing is left but the name; or there are only zeros where the chunk was."""
    replica.edit(lambda _: b"", lambda found: (found.offset, bytes(found.length)))


def extend(replica: Replica) -> None:
    """More than was ever written."""
    replica.edit(lambda content: content + bytes(100), set_length(1 << 20))


def remove(replica: Replica) -> None:
    """Not even the name."""
    remove_chunk(*replica)


def replace(replica: Replica) -> None:
    """With another chunk in its place: whole, with a good footer, and wrong. In a segment its bytes lie there."""
    root, of = replica
    stored = list_all_chunks(sorted(root.parent.glob("datanode-*")))
    others = [(place, other) for place, other in stored if other != of]
    in_file = find_chunk(root, of).slot_at is None
    place, other = next(it for it in others if not in_file or find_chunk(*it).slot_at is None)
    replica.edit(
        lambda _: find_chunk(place, other).path.read_bytes(),
        lambda found: (found.offset, read_chunk(place, other)[: found.length]),
    )


DAMAGES: list[Callable[[Replica], None]] = [flip, truncate, empty, extend, remove, replace]


def replicas(server: Server) -> dict[ChunkId, list[Replica]]:
    """Chunk id → where it lies."""
    found: dict[ChunkId, list[Replica]] = {}
    for root, of in list_all_chunks(sorted(server.data.glob("datanode-*"))):
        found.setdefault(of, []).append(Replica(root, of))
    return found


def are_whole(server: Server, good: dict[ChunkId, bytes]) -> bool:
    """Two replicas of every chunk, with the bytes that were stored."""
    found = replicas(server)
    return found.keys() == good.keys() and all(are_two(found[of], data) for of, data in good.items())


def are_two(copies: list[Replica], data: bytes) -> bool:
    """With these bytes."""
    try:
        return len(copies) == 2 and all(read_chunk(*copy) == data for copy in copies)
    except FileNotFoundError:  # a damaged one was set aside since they were listed
        return False


def try_to(call: Callable[..., Any], **arguments: Any) -> str:
    """The error's code, or `ok`."""
    try:
        call(Bucket=BUCKET, **arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    except BotoCoreError as error:
        return type(error).__name__
    return "ok"


def put(client: Any, name: str, size: int = SIZE) -> str:
    """An object whose body follows from its name."""
    return try_to(client.put_object, Key=name, Body=body_of(name, size))


def get(client: Any, name: str) -> bytes:
    """A whole body."""
    return bytes(client.get_object(Bucket=BUCKET, Key=name)["Body"].read())


@pytest.mark.timeout(300)
def test_a_damaged_replica_is_not_served_and_is_healed(server: Server) -> None:
    """Whatever is wrong with one of the two: the body is right every time, and soon there are two good ones again."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    for name in ("one", "two"):
        assert put(client, name) == "ok"
    good = {of: read_chunk(*copies[0]) for of, copies in replicas(server).items()}
    victims = list(good)[:2]  # one in a file, one in a segment
    for damage in DAMAGES:
        for victim in victims:
            damage(replicas(server)[victim][0])
            assert not are_two(replicas(server).get(victim, []), good[victim])

        def is_healed_by_reads(damage: Callable[[Replica], None] = damage) -> bool:
            """A reader begins at either replica by chance, so reads go on until one met the damage."""
            for name in ("one", "two"):
                assert get(client, name) == body_of(name, SIZE), damage
            return are_whole(server, good)

        wait_until(is_healed_by_reads, HEAL_WAIT_S, f"healing after {damage.__name__}")


@pytest.mark.timeout(200)
def test_when_no_good_replica_is_left(server: Server) -> None:
    """An error before the headers or a broken connection: neither wrong bytes nor a short body that ends cleanly."""
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    assert put(client, "whole") == "ok"  # which `replace` finds when all others were set aside by then
    for damage in DAMAGES:
        name = damage.__name__
        before = replicas(server).keys()
        assert put(client, name) == "ok"
        chunks = {chunk: copies for chunk, copies in replicas(server).items() if chunk not in before}
        first, last = (chunks[chunk] for chunk in sorted(chunks))
        for copy in last:
            damage(copy)
        with pytest.raises((BotoCoreError, ClientError)):
            get(client, name)
        head = client.get_object(Bucket=BUCKET, Key=name, Range="bytes=0-999")["Body"].read()
        assert head == body_of(name, SIZE)[:1000], "what is whole can still be read"
        for copy in first:
            damage(copy)
        with pytest.raises((BotoCoreError, ClientError)):
            get(client, name)
    assert server.ready()


@pytest.fixture
def unlucky(tmp_path: Path) -> Iterator[Server]:
    """A server one of whose datanodes has a small disk."""
    running = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "2")
    with small_disk(running.data / "datanode-2", DISK_MIB):
        try:
            running.start()
            wait_for_nodes(running.data, 3)
            running.client().create_bucket(Bucket=BUCKET)
            yield running
        finally:
            running.stop()


@pytest.mark.timeout(200)
def test_a_full_datanode(unlucky: Server) -> None:
    """Others take its place without a failed request; deletes make room, which is used again."""
    client, disk = unlucky.client(), unlucky.data / "datanode-2"
    for number in range(14):
        assert put(client, f"filling-{number}") == "ok"
        assert unlucky.ready()
    fill(disk)
    for number in range(6):
        assert put(client, f"full-{number}") == "ok"
        assert put(client, f"small-{number}", 20_000) == "ok"
        assert unlucky.ready()
    for number in range(14):
        assert get(client, f"filling-{number}") == body_of(f"filling-{number}", SIZE)
    for number in range(14):
        assert try_to(client.delete_object, Key=f"filling-{number}") == "ok"
    wait_until(lambda: len(list_chunks(disk)) <= 6, 60, "making room by deletes")
    (disk / "ballast").unlink()
    used = set(list_chunks(disk))
    wait_until(
        lambda: put(client, "again") == "ok" and not set(list_chunks(disk)) <= used,
        60,
        "using it again",
    )
    for number in range(6):
        assert get(client, f"full-{number}") == body_of(f"full-{number}", SIZE)


def node_of(disk: Path, server: Server) -> dict[str, Any]:
    """The node on this disk, as the master sees it."""
    node_id = json.loads((disk / "node.json").read_text())["node_id"]
    listed: list[dict[str, Any]] = load_json("node", "list", "--data", server.data)
    return next(node for node in listed if node["node_id"] == node_id)


@pytest.mark.timeout(300)
def test_a_datanode_whose_disk_turns_read_only(unlucky: Server) -> None:
    """Status says so, writes go to the others, reads are served, and the sweep of the others goes on. It is used again
    once it can be written; what was not deleted there goes as an orphan, when its sessions are over."""
    client, disk = unlucky.client(), unlucky.data / "datanode-2"
    for number in range(4):
        assert put(client, f"before-{number}", 300_000) == "ok"
    held = set(list_chunks(disk))
    assert held
    wait_until(lambda: not is_written_to(disk / "chunks"), 10, "closing the segments")
    with frozen(disk):
        for number in range(6):
            assert put(client, f"during-{number}", 300_000) == "ok"
            assert unlucky.ready()
        for name in [f"{when}-{number}" for when, count in (("before", 4), ("during", 6)) for number in range(count)]:
            assert get(client, name) == body_of(name, 300_000)
        for number in range(4):
            assert try_to(client.delete_object, Key=f"before-{number}") == "ok"
        wait_until(lambda: node_of(disk, unlucky)["medium_error"], 60, "telling of the medium")
        others = [unlucky.data / f"datanode-{number}" for number in (1, 3)]
        wait_until(lambda: node_of(disk, unlucky)["state"] == "dead", 60, "counting it as dead")
        wait_until(
            lambda: not held & {of for _, of in list_all_chunks(others)},
            60,
            "the deletes on the others",
        )
        assert set(list_chunks(disk)) == held
    wait_until(lambda: node_of(disk, unlucky)["state"] == "up", 60, "using it again")
    assert not node_of(disk, unlucky)["medium_error"]
    wait_until(
        lambda: put(client, "again") == "ok" and not set(list_chunks(disk)) <= held,
        60,
        "placing on it again",
    )
    assert all(get(client, f"during-{number}") == body_of(f"during-{number}", 300_000) for number in range(6))


@pytest.mark.timeout(200)
def test_a_full_metadata_disk(tmp_path: Path) -> None:
    """Below the reserve new objects get 503 while reads and deletes go on; with no byte left reads still do; with room
    again everything works, without a restart by hand."""
    server = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "2")
    disk = server.data / "metadata"
    with small_disk(disk, METADATA_DISK_MIB):
        try:
            server.start()
            client = server.client()
            client.create_bucket(Bucket=BUCKET)
            for number in range(20):
                assert put(client, f"before-{number}", 5_000) == "ok"
            ballast = fill(disk, leave_mib=64)
            wait_until(lambda: put(client, "probing", 5_000) == "SlowDown", 60, "the reserve")
            assert put(client, "refused", 300_000) == "SlowDown"
            assert get(client, "before-0") == body_of("before-0", 5_000)
            assert try_to(client.delete_object, Key="before-1") == "ok"
            ballast.unlink()
            ballast = fill(disk)
            for number in range(2, 20):
                assert get(client, f"before-{number}") == body_of(f"before-{number}", 5_000)
            assert put(client, "refused", 5_000) != "ok"
            answers = {try_to(client.delete_object, Key=f"before-{number}") for number in range(2, 10)}
            assert answers <= {"ok", "SlowDown"}
            ballast.unlink()
            wait_until(lambda: put(client, "after", 5_000) == "ok", 60, "writing again")
            server.wait_ready()
            assert try_to(client.head_object, Key="refused") == "404"
            assert try_to(client.head_object, Key="before-1") == "404"
            for number in range(10, 20):
                assert get(client, f"before-{number}") == body_of(f"before-{number}", 5_000)
        finally:
            server.stop()
