"""A real datanode process: serves, survives kill -9, refuses what it must, drains on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from storage.base.errors import NodeUnreachable
from storage.base.internal_auth import access_token, derive_node_key, report_token
from storage.base.internal_client import Deadlines
from tests.storage.base.serving import exchange_bytes
from tests.storage.chunks.conformance import chunk_id, cut, put, read, some_bytes
from tests.storage.datanode.nodes import NODE_KEY, refused_start, running_node, write_config
from tests.tls import make_internal_tls


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """Small, large and batched; the second process takes over socket, lock and identity."""
    data = some_bytes(5_000_000)
    with running_node(tmp_path) as node:
        client = node.client()
        await put(client, chunk_id(1), data)
        await put(client, chunk_id(2), b"small")
        await client.put_many([(chunk_id(n), b"batch %d" % n) for n in range(3, 10)])
        identity = (node.data / "node.json").read_bytes()
        node.kill()
        with pytest.raises(NodeUnreachable):
            await client.stat(chunk_id(1))
        await client.close()
    with running_node(tmp_path) as node:
        client = node.client()
        assert await read(client, chunk_id(1)) == data
        assert await read(client, chunk_id(2)) == b"small"
        assert await client.get_many([(chunk_id(9), 0, 100)]) == [b"batch 9"]
        assert len(await client.inventory(None, 100)) == 9
        assert (node.data / "node.json").read_bytes() == identity
        await client.close()


async def test_a_client_outlives_its_node(tmp_path: Path) -> None:
    """Pooled connections to the dead process are not taken for the new one's."""
    with running_node(tmp_path) as node:
        client = node.client()
        await put(client, chunk_id(1), b"before")
        node.kill()
    with running_node(tmp_path) as node:
        assert await read(client, chunk_id(1)) == b"before"
        await put(client, chunk_id(2), some_bytes(1_000_000))
        await client.put_many([(chunk_id(3), b"batch")])
        await client.close()


async def test_a_node_that_stands_still_misses_the_deadline(tmp_path: Path) -> None:
    """It accepts and takes bytes into its socket, but never answers; when it goes on, so does the client."""
    with running_node(tmp_path) as node:
        patient, hasty = node.client(), node.client(deadlines=Deadlines(connect_s=0.2, progress_s=0.2, answer_s=0.2))
        await put(patient, chunk_id(1), some_bytes(1_000_000))
        os.kill(node.pid, signal.SIGSTOP)
        for attempt in (
            put(hasty, chunk_id(2), b"small"),
            put(hasty, chunk_id(2), some_bytes(1_000_000)),
            read(hasty, chunk_id(1)),
            read(hasty, chunk_id(1), 0, 10),
            hasty.stat(chunk_id(1)),
        ):
            with pytest.raises(NodeUnreachable, match="deadline"):
                await attempt
        os.kill(node.pid, signal.SIGCONT)
        assert await read(patient, chunk_id(1)) == some_bytes(1_000_000)
        await patient.close()
        await hasty.close()


async def test_kill_9_in_a_put_leaves_nothing(tmp_path: Path) -> None:
    """The client sees an unreachable node; the next start sweeps the leftover away."""
    sent = asyncio.Event()

    with running_node(tmp_path) as node:
        client = node.client()

        async def body():  # type: ignore[no-untyped-def]
            for _ in range(40):
                yield some_bytes(65_536)
            while not os.listdir(node.data / "tmp"):
                await asyncio.sleep(0.005)
            sent.set()
            await asyncio.Event().wait()

        putting = asyncio.ensure_future(client.put(chunk_id(1), 50 * 65_536, body()))
        await asyncio.wait_for(sent.wait(), 60)
        node.kill()
        with pytest.raises(NodeUnreachable):
            await putting
        await client.close()
        assert os.listdir(node.data / "tmp")
    with running_node(tmp_path) as node:
        client = node.client()
        assert await client.inventory(None, 10) == []
        assert os.listdir(node.data / "tmp") == []
        await client.close()


async def test_sigterm_finishes_the_put_under_way(tmp_path: Path) -> None:
    """Exit code 0, the socket gone, the chunk there at the next start."""
    data = some_bytes(2_000_000)
    with running_node(tmp_path) as node:
        client = node.client()
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def body():  # type: ignore[no-untyped-def]
            yield data[:1_000_000]
            asked.set()
            await go_on.wait()
            yield data[1_000_000:]

        putting = asyncio.ensure_future(client.put(chunk_id(1), len(data), body()))
        await asked.wait()
        os.kill(node.pid, signal.SIGTERM)
        while True:
            try:
                (await asyncio.open_unix_connection(node.address.path))[1].close()
            except OSError:
                break
            await asyncio.sleep(0.01)
        go_on.set()
        assert (await putting).length == len(data)
        await client.close()
        assert await asyncio.to_thread(node.process.wait, 30) == 0
        assert not Path(node.address.path).exists()
    with running_node(tmp_path) as node:
        client = node.client()
        assert await read(client, chunk_id(1)) == data
        await client.close()
        assert node.terminate() == 0


async def test_strangers_and_nonsense_do_not_hurt_it(tmp_path: Path) -> None:
    """Bad tokens, bad ids, truncated bodies, endless heads: answered or cut, and the process stays up."""
    with running_node(tmp_path) as node:
        for token in ("0" * 64, report_token(NODE_KEY), access_token(bytes(32))):
            stranger = node.client(token)
            with pytest.raises(NodeUnreachable, match="401"):
                await stranger.stat(chunk_id(1))
            with pytest.raises(NodeUnreachable, match="401"):
                await stranger.put(chunk_id(1), 1_000_000, cut(some_bytes(1_000_000), 65_536))
            await stranger.close()
        authorization = f"authorization: Bearer {access_token(NODE_KEY)}\r\n".encode()
        truncated = (
            b"PUT /v1/chunks/" + b"0" * 40 + b" HTTP/1.1\r\n" + authorization + b"content-length: 99\r\n\r\nhalf"
        )
        _, writer = await asyncio.open_unix_connection(node.address.path)
        writer.write(truncated)
        writer.write_eof()
        writer.close()
        for request, status in (
            (b"GET / HTTP/1.1\r\nh: " + b"x" * 100_000, b"400"),
            (b"\x00\x01\x02\r\n\r\n", b"400"),
            (b"GET /v1/chunks/..%2f..%2fnode.json HTTP/1.1\r\nconnection: close\r\n" + authorization + b"\r\n", b"405"),
            (b"GET /v1/space HTTP/1.1\r\nconnection: close\r\n\r\n", b"401"),
        ):
            assert (await exchange_bytes(node.address, request)).split(b" ")[1] == status
        client = node.client()
        await put(client, chunk_id(1), b"still here")
        assert [entry.length for entry in await client.inventory(None, 10)] == [10]
        assert os.listdir(node.data / "tmp") == []
        await client.close()
        assert "Traceback" not in node.log.read_text()


async def test_over_tls(tmp_path: Path) -> None:
    """On a port that the kernel chose."""
    tls = make_internal_tls(tmp_path)
    with running_node(tmp_path, listen="https://127.0.0.1:0", tls_cert=tls.files.cert, tls_key=tls.files.key) as node:
        client = node.client(tls_ca=tls.ca)
        data = some_bytes(2_000_000)
        await put(client, chunk_id(1), data)
        assert await read(client, chunk_id(1)) == data
        await client.close()
        assert node.terminate() == 0


async def test_the_internal_key_gives_the_nodes_key(tmp_path: Path) -> None:
    """Callers derive the same from the id in node.json."""
    (tmp_path / "internal.key").write_text(bytes(32).hex())
    with running_node(tmp_path, node_key=None, internal_key_file=str(tmp_path / "internal.key")) as node:
        node_id = json.loads((node.data / "node.json").read_text())["node_id"]
        client = node.client(access_token(derive_node_key(bytes(32), "datanode", node_id)))
        assert (await client.space()).reserve_bytes == 0
        await client.close()


def test_two_processes_never_share_a_directory(tmp_path: Path) -> None:
    """The second gives up in one line, also with a socket of its own; the first goes on."""
    with running_node(tmp_path) as node:
        write_config(tmp_path, listen=f"unix:{tmp_path / 'other.sock'}")
        code, said = refused_start(tmp_path)
        assert (code, said.count("\n")) == (2, 1)
        assert "another process holds" in said
        assert node.process.poll() is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"listen": "http://0.0.0.0:0"}, "loopback only"),
        ({"listen": "http://192.0.2.1:9000"}, "loopback only"),
        ({"listen": "https://127.0.0.1:0"}, "needs tls_cert"),
        ({"listen": "https://127.0.0.1:0", "tls_cert": "/none", "tls_key": "/none"}, "cannot load"),
        ({"listen": "unix:/nonexistent/dir/s"}, "cannot listen"),
        ({"node_key": "00"}, "32 bytes"),
        ({"color": "blue"}, "unknown field"),
        ({"cluster_id": "d" * 32}, "belongs to cluster"),
        ({"node_id": "e" * 32}, "belongs to node"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    """Exit code 2, no traceback, and an existing directory untouched."""
    data = tmp_path / "data"
    data.mkdir()
    identity = json.dumps({"format_version": 1, "node_id": "1" * 32, "cluster_id": "c" * 32})
    (data / "node.json").write_text(identity)
    write_config(tmp_path, **fields)
    code, said = refused_start(tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    if "belongs" in message:
        assert os.listdir(data) == ["node.json"]


async def test_durability_none_is_said_and_works(tmp_path: Path) -> None:
    """For benchmarks; never in silence."""
    with running_node(tmp_path, durability="none") as node:
        client = node.client()
        await put(client, chunk_id(1), b"quick")
        assert await read(client, chunk_id(1)) == b"quick"
        await client.close()
        assert "durability is none" in node.log.read_text()
