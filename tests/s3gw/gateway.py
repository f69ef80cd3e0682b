"""The gateway over the real doors, on a real loopback socket, in a thread of its own. Only datanodes are in memory."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import boto3
import uvloop
from botocore.config import Config

from cluster.directory import Directory
from cluster.objectstore import ObjectStore
from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw.app import create_app
from s3gw.call import Services, Settings
from s3gw.http_limits import HttpLimits
from s3gw.server import serve_gateway
from storage.base.clock import SystemClock
from storage.base.internal_server import TlsFiles
from storage.model import User, Versioning
from tests.clients.certificates import CertificateFiles
from tests.cluster.world import open_world

ROOT = User("0" * 64, "root", "Root", is_root=True)
ALICE = User("a" * 64, "alice", "Alice")
BOB = User("b" * 64, "bob", "Bob")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


class Switch:
    """The door of operations: ready or not, as the test says."""

    def __init__(self) -> None:
        self.is_ready = True
        self.reads = ReadCounts()
        self.writes = WriteCounts()

    async def ready(self) -> bool:
        """What the switch says."""
        return self.is_ready


class Gateway(NamedTuple):
    """A running gateway. Access key ids are the users' names, secrets are `secret-of-NAME`."""

    url: str
    host: str
    port: int
    services: Services
    switch: Switch
    loop: asyncio.AbstractEventLoop
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
        """Past S3, for doors of any kind: done in the gateway's own loop."""

        async def change() -> None:
            directory = self.services.directory
            await directory.refresh()
            await directory.set_versioning(await directory.bucket(bucket), versioning)

        asyncio.run_coroutine_threadsafe(change(), self.loop).result(START_TIMEOUT_S)


@asynccontextmanager
async def cluster_doors() -> AsyncIterator[tuple[ObjectStore, Directory]]:
    """The real doors over real metadata and keys; only the datanodes are in memory."""
    with TemporaryDirectory() as home:
        async with open_world(Path(home)) as world:
            yield world.cluster.objects, world.cluster.directory


Doors = Callable[[], AbstractAsyncContextManager[tuple[ObjectStore, Directory]]]


@contextmanager
def running_gateway(
    settings: Settings = Settings(),  # noqa: B008 (an immutable value)
    certificates: CertificateFiles | None = None,
    doors: Doors = cluster_doors,
) -> Iterator[Gateway]:
    """Serve until the block ends."""
    switch = Switch()
    tls = None if certificates is None else TlsFiles(str(certificates.certificate), str(certificates.private_key))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    stop = asyncio.Event()
    started = threading.Event()
    loop = uvloop.new_event_loop()
    made: list[Services] = []

    async def serve() -> None:
        async with doors() as (objects, directory):
            for user in (ROOT, ALICE, BOB):
                await directory.create_user(user, user.name, f"secret-of-{user.name}")
            made.append(Services(objects, directory, switch, settings, SystemClock()))
            limits = HttpLimits(drain_s=2)
            await serve_gateway(create_app(made[0]), sock, tls=tls, limits=limits, on_started=started.set, stop=stop)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError("the gateway did not start")
        url = f"{'https' if certificates else 'http'}://127.0.0.1:{port}"
        ca_file = str(certificates.ca) if certificates else None
        yield Gateway(url, "127.0.0.1", port, made[0], switch, loop, ca_file)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(STOP_TIMEOUT_S)
        loop.close()
