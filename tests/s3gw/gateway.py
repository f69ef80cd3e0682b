"""The gateway over the memory store, on a real loopback socket, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3
import uvicorn
import uvloop
from botocore.config import Config

from s3gw.app import create_app
from s3gw.call import Services, Settings
from storage.base.clock import SystemClock
from storage.model import User
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
    tls = (
        {}
        if certificates is None
        else {
            "ssl_certfile": str(certificates.certificate),
            "ssl_keyfile": str(certificates.private_key),
        }
    )
    config = uvicorn.Config(
        create_app(services),
        host="127.0.0.1",
        port=0,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="critical",
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        **tls,
    )
    server = uvicorn.Server(config)
    started = threading.Event()

    async def serve() -> None:
        for user in (ROOT, ALICE, BOB):
            await directory.create_user(user, user.name, f"secret-of-{user.name}")
        startup = server.startup

        async def announced(sockets: Any = None) -> None:
            await startup(sockets)
            started.set()

        server.startup = announced  # type: ignore[method-assign]
        await server.serve()

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    try:
        if not started.wait(START_TIMEOUT_S):
            raise RuntimeError("the gateway did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        scheme = "https" if certificates else "http"
        ca_file = str(certificates.ca) if certificates else None
        yield Gateway(f"{scheme}://127.0.0.1:{port}", "127.0.0.1", port, services, directory, objects, switch, ca_file)
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(STOP_TIMEOUT_S)
