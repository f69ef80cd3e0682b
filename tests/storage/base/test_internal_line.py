"""The line of a thread: every way a peer can fail is one error, in time, and no answer is taken for that of another
request."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from storage.base.address import Address, parse_address
from storage.base.errors import NodeUnreachable
from storage.base.internal_line import ANSWER_BYTES_MAX, InternalLine
from tests.storage.base.serving import serving
from tests.storage.base.test_internal_client import echo
from tests.tls import make_internal_tls

WITHIN_S = 5.0
SHORT_S = 0.2
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%b"

Serve = Callable[[int, socket.socket], None]
"""number of the connection, from 0 on, and the connection"""


@contextmanager
def peer(path: Path, serve: Serve) -> Iterator[Address]:
    """One that does with its connections what it likes, one after the other."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def run() -> None:
        number = 0
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, suppress(OSError):
                    serve(number, connection)
                number += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield parse_address(f"unix:{path}")
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(WITHIN_S)


def read_request(connection: socket.socket) -> bytes:
    """Head and body; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(65536)
        if not block:
            return b""
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def answer_all(_: int, connection: socket.socket) -> None:
    """With the last two bytes of each body."""
    while request := read_request(connection):
        connection.sendall(OK % request[-2:])


def call(line: InternalLine, body: bytes, within_s: float = WITHIN_S, target: str = "/x?y=1") -> bytes:
    line.send("PUT", target, body, within_s)
    return line.receive().body


async def test_it_speaks_with_our_servers(tmp_path: Path) -> None:
    """Over a Unix socket and over TLS, again and again on one connection."""
    tls = make_internal_tls(tmp_path)
    for address, files, ca in (
        (f"unix:{tmp_path / 's'}", None, None),
        ("https://127.0.0.1:0", tls.files, tls.ca),
    ):
        async with serving(echo, address, files) as bound:
            line = InternalLine(bound, "t", tls_ca=ca)
            for size in (0, 1, 300_000):
                assert await asyncio.to_thread(call, line, bytes(size), WITHIN_S, "/count") == b"%d" % size
            line.close()


def test_the_request_is_spelled_as_the_others(tmp_path: Path) -> None:
    """The servers' short road takes heads as InternalClient spells them."""
    seen = []

    def serve(_: int, connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(OK % b"ok")

    with peer(tmp_path / "s", serve) as address:
        line = InternalLine(address, "t")
        assert call(line, b"body") == b"ok"
        line.close()
    head = b"PUT /x?y=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer t\r\nContent-Length: 4\r\n\r\n"
    assert seen == [head + b"body"]


def test_a_kept_connection_that_is_lost_is_replaced_once(tmp_path: Path) -> None:
    """Whether its end is found when sending or when waiting; a new one that is lost is an error."""
    closed = threading.Event()

    def serve(number: int, connection: socket.socket) -> None:
        if number < 2:
            connection.sendall(OK % read_request(connection)[-2:])
            if number == 1:
                read_request(connection)
        elif number == 2:
            answer_all(number, connection)
        closed.set()

    with peer(tmp_path / "s", serve) as address:
        line = InternalLine(address, "t")
        assert call(line, b"aa") == b"aa"
        assert closed.wait(WITHIN_S)
        assert call(line, b"bb") == b"bb"
        assert call(line, b"cc") == b"cc"  # taken by the second connection, which ends without an answer
        line.close()
        with pytest.raises(NodeUnreachable, match=r"PUT unix:.*/x: (ConnectionReset|BrokenPipe)Error"):
            call(line, b"dd")
        line.close()


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 200 OK\r\n\r\n", b"nonsense\r\n\r\n", OK % b"ok" + b"more", b"HTTP/1.1 200 OK\r\n\r\n"],
)
def test_bytes_that_are_no_answer_end_the_connection(tmp_path: Path, answer: bytes) -> None:
    """And the next request goes on another."""

    def serve(number: int, connection: socket.socket) -> None:
        if number:
            answer_all(number, connection)
        elif read_request(connection):
            connection.sendall(answer)

    with peer(tmp_path / "s", serve) as address:
        line = InternalLine(address, "t")
        with pytest.raises(NodeUnreachable, match="StrangeAnswer"):
            call(line, b"aa")
        assert call(line, b"bb") == b"bb"
        line.close()


def test_an_answer_is_bounded(tmp_path: Path) -> None:
    def serve(_: int, connection: socket.socket) -> None:
        read_request(connection)
        size = ANSWER_BYTES_MAX + 1
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))

    with peer(tmp_path / "s", serve) as address, pytest.raises(NodeUnreachable, match="too long"):
        call(InternalLine(address, "t"), b"aa")


def test_a_deadline_holds_for_the_whole_call(tmp_path: Path) -> None:
    """Also where single bytes come in time; a late answer is not taken for that of the next request."""

    def serve(number: int, connection: socket.socket) -> None:
        if number:
            answer_all(number, connection)
            return
        read_request(connection)
        for byte in OK % b"no":
            time.sleep(SHORT_S / 4)
            connection.sendall(bytes([byte]))

    with peer(tmp_path / "s", serve) as address:
        line = InternalLine(address, "t")
        began_s = time.monotonic()
        with pytest.raises(NodeUnreachable, match="missed a deadline"):
            call(line, b"aa", SHORT_S)
        assert time.monotonic() - began_s < 5 * SHORT_S
        assert call(line, b"bb") == b"bb"
        line.close()


def test_who_does_not_wait_leaves_no_answer_to_the_next(tmp_path: Path) -> None:
    with peer(tmp_path / "s", answer_all) as address:
        line = InternalLine(address, "t")
        line.send("PUT", "/x", b"aa", WITHIN_S)
        assert call(line, b"bb") == b"bb"
        line.close()


def test_nobody_there_is_an_error_at_once(tmp_path: Path) -> None:
    line = InternalLine(parse_address(f"unix:{tmp_path / 'nobody'}"), "t")
    with pytest.raises(NodeUnreachable, match="FileNotFoundError"):
        line.send("PUT", "/x", b"", WITHIN_S)
    line.close()


def test_closing_ends_a_wait(tmp_path: Path) -> None:
    """From another thread; the line can be used again afterwards."""
    asked = threading.Event()

    def serve(number: int, connection: socket.socket) -> None:
        if number:
            answer_all(number, connection)
            return
        read_request(connection)
        asked.set()
        connection.recv(1)

    with peer(tmp_path / "s", serve) as address:
        line = InternalLine(address, "t")
        closing = threading.Thread(target=lambda: asked.wait(WITHIN_S) and line.close())
        closing.start()
        with pytest.raises(NodeUnreachable):
            call(line, b"aa")
        closing.join()
        assert call(line, b"bb") == b"bb"
        line.close()
