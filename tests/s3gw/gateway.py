"""The gateway over the memory store, on a real loopback socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import boto3
import uvloop
from botocore.config import Config

from s3gw.app import create_app
from s3gw.call import Services, Settings
from s3gw.server import HttpLimits, serve_gateway
from storage.base.clock import SystemClock
from storage.base.internal_server import TlsFiles
from storage.model import User, Versioning
from tests.clients.certificates import CertificateFiles
from tests.s3gw.memory_store import MemoryDirectory, MemoryObjectStore

ROOT = User("0" * 64, "root", "Root", is_root=True)
ALICE = User("a" * 64, "alice", "Alice")
BOB = User("b" * 64, "bob", "Bob")
START_TIMEOUT_S = 10
STOP_TIMEOUT_S = 10


class Switch:
    """The door of operations: ready or not, as the test says."""

    def __init__(self) -> None:
        self.is_ready = True

    async def ready(self) -> bool:
        """What the switch says."""
        return self.is_ready


class Gateway(NamedTuple):
    """A running gateway. Access key ids are the users' names, secrets are `secret-of-NAME`."""

    url: str
    host: str
    port: int
    services: Services
    directory: MemoryDirectory
    objects: MemoryObjectStore
    switch: Switch
    ca_file: str | None = None

    def client(self, name: str = "alice", **config: Any) -> Any:
        """A boto3 client of one of the users; no retries, path style."""
        config = {"s3": {"addressing_style": "path"}, "retries": {"max_attempts": 0}} | config
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=name,
            aws_secret_access_key=f"secret-of-{name}",
            region_name=self.services.settings.region,
            config=Config(**config),
            verify=self.ca_file,
        )

    def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        """What no S3 request can do yet. The memory doors never wait, so one step is the whole coroutine."""
        with suppress(StopIteration):
            self._set_versioning(bucket, versioning).send(None)

    async def _set_versioning(self, bucket: str, versioning: Versioning) -> None:
        await self.directory.set_versioning(await self.directory.bucket(bucket), versioning)


@contextmanager
def running_gateway(
    settings: Settings = Settings(),  # noqa: B008 (an immutable value)
    certificates: CertificateFiles | None = None,
    objects_type: type[MemoryObjectStore] = MemoryObjectStore,
) -> Iterator[Gateway]:
    """Serve until the block ends."""
    clock = SystemClock()
    directory = MemoryDirectory(clock)
    objects = objects_type(directory, clock)
    switch = Switch()
    services = Services(objects, directory, switch, settings, clock)
    tls = None if certificates is None else TlsFiles(str(certificates.certificate), str(certificates.private_key))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    stop: asyncio.Event | None = None
    started = threading.Event()
    loop = uvloop.new_event_loop()

    async def serve() -> None:
        nonlocal stop
        stop = asyncio.Event()
        for user in (ROOT, ALICE, BOB):
            await directory.create_user(user, user.name, f"secret-of-{user.name}")
        await serve_gateway(
            create_app(services), sock, tls=tls, limits=HttpLimits(drain_s=2), on_started=started.set, stop=stop
        )

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError("the gateway did not start")
        url = f"{'https' if certificates else 'http'}://127.0.0.1:{port}"
        ca_file = str(certificates.ca) if certificates else None
        yield Gateway(url, "127.0.0.1", port, services, directory, objects, switch, ca_file)
    finally:
        if stop is not None:
            loop.call_soon_threadsafe(stop.set)
        thread.join(STOP_TIMEOUT_S)
        loop.close()
