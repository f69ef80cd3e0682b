"""The public socket, and how its readiness is asked for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from s3gw.cli.listener import make_readiness, open_listener, require_tls_files
from s3gw.config import ConfigError
from tests.tls import make_internal_tls

NOT_YET = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
READY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def answering(
    listener: socket.socket, answers: list[bytes], tls: ssl.SSLContext | None = None
) -> AsyncIterator[list[bytes]]:
    """A server that gives one answer after the other; what it was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answers[min(len(asked), len(answers)) - 1])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, sock=listener, ssl=tls):
        yield asked


@pytest.mark.parametrize(("listen", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_the_socket_accepts_before_any_worker_runs(listen: str, family: socket.AddressFamily) -> None:
    """So that no client is refused while workers come and go."""
    with open_listener(listen) as listener:
        assert listener.family is family
        with socket.create_connection(listener.getsockname()[:2], timeout=5):
            pass


def test_addresses_that_cannot_be_had() -> None:
    """Taken, not of this machine, or no address: one line with the system's reason."""
    with open_listener("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            open_listener(f"127.0.0.1:{port}")
    for listen in ("192.0.2.1:9000", "nowhere.invalid:9000"):
        with pytest.raises(ConfigError, match=f"cannot listen on {listen}: ") as caught:
            open_listener(listen)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "nonsense", [b"", b"\r\n\r\n", b"HTTP/1.1 " + b"2" * 100_000, b"HTTP/1.1 404 200\r\n\r\n", b"\x00" * 9000 + b"\n"]
)
async def test_it_waits_until_the_answer_is_200(nonsense: bytes) -> None:
    """Whatever else is answered, nothing, or too much."""
    with open_listener("127.0.0.1:0") as listener:
        wait = make_readiness(listener, is_tls=False)
        async with answering(listener, [NOT_YET, nonsense, NOT_YET, READY]) as asked, asyncio.timeout(60):
            await wait()
    assert len(asked) == 4
    assert asked[0].startswith(b"GET /-/ready HTTP/1.1\r\n")


async def test_over_tls_whatever_name_the_certificate_has(tmp_path: Path) -> None:
    """It is our own socket that is asked."""
    files = make_internal_tls(tmp_path).files
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with open_listener("0.0.0.0:0") as listener:
        wait = make_readiness(listener, is_tls=True)
        async with answering(listener, [READY], context) as asked, asyncio.timeout(60):
            await wait()
    assert len(asked) == 1


async def test_it_waits_while_nobody_answers() -> None:
    """Until it is told to stop."""
    with open_listener("127.0.0.1:0") as listener:
        wait = make_readiness(listener, is_tls=False)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.3)


def test_tls_files_are_tried(tmp_path: Path) -> None:
    """None are fine; what cannot be loaded is named."""
    require_tls_files("", "")
    files = make_internal_tls(tmp_path).files
    require_tls_files(files.cert, files.key)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nothing")
    for cert, key in ((str(garbage), files.key), (files.cert, str(garbage)), (files.cert, str(tmp_path / "none"))):
        with pytest.raises(ConfigError, match="cannot load") as caught:
            require_tls_files(cert, key)
        assert "\n" not in str(caught.value)
