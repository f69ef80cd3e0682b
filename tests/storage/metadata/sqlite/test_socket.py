"""The metadata socket under hostile and broken peers: the owner survives, its other clients do not notice."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from storage.base.errors import Unavailable
from storage.metadata.commands import OpenSession, PutBucketSetting, RenewSession
from storage.metadata.sqlite.client import IN_FLIGHT_MAX, MetadataClient
from storage.metadata.sqlite.wire import COMMAND, FRAME_BYTES_MAX, FrameReader, encode_command, encode_frame
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import SqliteEngine
from tests.storage.metadata.owner_process import OwnerProcess


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[OwnerProcess]:
    """A running owner process that must still live and drain at the end."""
    process = OwnerProcess(tmp_path)
    await process.start()
    await (await process.connect()).close()
    yield process
    assert (await process.stop())[0] == 0


async def talk(path: Path, data: bytes) -> bytes:
    """Send, half-close, and read until the owner hangs up."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 60)
    except (ConnectionResetError, BrokenPipeError):
        return b""
    finally:
        writer.close()


def fuzz_cases(randomness: random.Random) -> list[bytes]:
    """Garbage of every kind, most of it close to the real thing."""
    valid = encode_command(1, OpenSession(b"12345678", "x"))
    cases = [
        b"",
        b"\x00",
        valid[:5],
        valid[:-1],
        struct.pack(">IQB", FRAME_BYTES_MAX + 1, 1, COMMAND),
        struct.pack(">IQB", 2**32 - 1, 2**64 - 1, COMMAND) + b"x" * 100,
        struct.pack(">IQB", FRAME_BYTES_MAX, 1, COMMAND) + bytes(1 << 20),
        encode_frame(1, 0, b""),
        encode_frame(1, 2, b"\xc0"),
        encode_frame(1, COMMAND, b""),
        encode_frame(1, COMMAND, b"\x91\xa7Unknown"),
        encode_frame(1, COMMAND, b"\x91" * 5000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        encode_command(1, RenewSession(b"12345678", 2**64 - 1)),
    ]
    cases += [randomness.randbytes(randomness.randrange(1, 200)) for _ in range(30)]
    for _ in range(60):
        changed = bytearray(valid)
        changed[randomness.randrange(len(changed))] = randomness.randrange(256)
        cases.append(bytes(changed))
    return cases


async def test_the_owner_survives_garbage(owner: OwnerProcess) -> None:
    """Frames that are no frames, too long, cut short, of no known command or of changed bytes."""
    seed = os.environ.get("FROSTBYTE_SEED") or os.urandom(4).hex()
    print(f"FROSTBYTE_SEED={seed}")
    metadata = await owner.connect()
    worker = await Worker.start(metadata)
    for case in fuzz_cases(random.Random(seed)):
        await talk(owner.socket_path, case)
        assert owner.is_running, case
    await worker.put(b"k")
    assert await worker.etag(b"k") == "e"
    await metadata.close()


async def test_a_stuck_peer_does_not_hold_up_others(owner: OwnerProcess) -> None:
    """Half a frame, and a peer that never reads its answers."""
    metadata = await owner.connect()
    _, half = await asyncio.open_unix_connection(str(owner.socket_path))
    half.write(encode_command(1, OpenSession(b"half....", "x"))[:20])
    _, deaf = await asyncio.open_unix_connection(str(owner.socket_path))
    for number in range(2000):
        deaf.write(encode_command(number, OpenSession(b"%08d" % number, "x")))
    worker = await Worker.start(metadata)
    for number in range(20):
        await worker.put(b"%d" % number)
    for writer in (half, deaf):
        writer.close()
    await metadata.close()


async def test_answers_come_under_their_ids_whatever_the_order(owner: OwnerProcess) -> None:
    """Two calls of one id are the client's own fault and harm nobody."""
    data = b"".join(encode_command(number % 50, OpenSession(b"%08d" % number, "x")) for number in range(100))
    answered = await talk(owner.socket_path, data)
    ids = sorted(frame.request_id for frame in FrameReader().feed(answered))
    assert ids in (sorted([*range(50)] * 2), [])


async def test_another_user_is_refused(owner: OwnerProcess) -> None:
    """By the peer's credentials, even where the file's mode would let it in."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    metadata = await owner.connect()
    for path in (owner.socket_path, *owner.socket_path.parents):
        if path.is_relative_to(Path("/tmp")) and path != Path("/tmp"):
            path.chmod(0o777)
    code = (
        "import os, socket, sys\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(10)\n"
        "try: got = s.recv(1)\n"
        "except ConnectionResetError: got = b''\n"
        "print(len(got))"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, str(owner.socket_path)), stdout=subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output == b"0\n"
    await metadata.apply(OpenSession(b"12345678", "x"))
    await metadata.close()


async def serve_badly(path: Path, behave: Callable[[socket.socket], None]) -> None:
    """Accept one connection, wait for a command, then behave."""

    def run() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                behave(connection)
        path.unlink()

    await asyncio.to_thread(run)


@pytest.mark.parametrize(
    "behave",
    [
        lambda connection: None,
        lambda connection: connection.sendall(b"\xff" * 100),
        lambda connection: connection.sendall(encode_frame(1, 2, b"\x05")),
        lambda connection: connection.sendall(encode_frame(1, 9, b"")),
    ],
    ids=["hangs up", "garbage", "a result of another type", "an unknown kind"],
)
async def test_a_lost_answer_is_an_unknown_outcome_and_the_client_comes_back(
    tmp_path: Path, behave: Callable[[socket.socket], None]
) -> None:
    """Whatever the owner did instead of answering; the next call finds the next owner."""
    path = tmp_path / "s"
    bad = asyncio.create_task(serve_badly(path, behave))
    client = MetadataClient(path)
    await client.connect(10)
    with pytest.raises(Unavailable) as lost:
        await client.apply(OpenSession(b"12345678", "x"))
    assert lost.value.details == {"outcome": "unknown"}
    await bad
    engine = SqliteEngine(tmp_path)
    await engine.start()
    await client.apply(OpenSession(b"12345678", "x"))
    await client.close()
    with pytest.raises(Unavailable):
        await client.apply(OpenSession(b"87654321", "x"))
    await engine.stop()


async def test_calls_of_one_turn_leave_in_one_piece(tmp_path: Path) -> None:
    """So that the owner is woken once, and finds them together."""
    received: list[bytes] = []

    class Owner(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            received.append(data)

    server = await asyncio.get_running_loop().create_unix_server(Owner, str(tmp_path / "s"))
    client = MetadataClient(tmp_path / "s")
    await client.connect(10)
    commands = [OpenSession(b"%08d" % number, "x") for number in range(20)]
    outcomes: list[Unavailable] = []
    for command in commands:
        client.submit(command, outcomes.append)
    while not received:
        await asyncio.sleep(0.001)
    assert received == [b"".join([encode_command(number + 1, command) for number, command in enumerate(commands)])]
    client.submit(commands[0], outcomes.append)  # which never leaves
    await client.close()
    await asyncio.sleep(0.01)
    assert [outcome.details for outcome in outcomes] == [{"outcome": "unknown"}] * 21
    server.close()


async def test_calls_in_flight_are_bounded(tmp_path: Path) -> None:
    """The call above the bound is refused without being sent, the others are answered."""
    engine = SqliteEngine(tmp_path)
    await engine.start()
    metadata = await engine.connect()
    calls = [
        asyncio.create_task(metadata.apply(OpenSession(b"%08d" % number, ""))) for number in range(IN_FLIGHT_MAX + 5)
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None)] * IN_FLIGHT_MAX + [Unavailable] * 5
    with pytest.raises(Unavailable):
        await metadata.apply(PutBucketSetting(1, "policy", bytes(FRAME_BYTES_MAX)))
    await engine.stop()
