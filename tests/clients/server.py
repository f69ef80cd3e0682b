"""A real `frostbyte up` for client programs, started as its users start it: without a config.json, or with one that
names a PostgreSQL and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.clients.certificates import CertificateFiles
from tests.clients.endpoint import Endpoint
from tests.postgres_server import PostgresServer
from tests.probe.engines import database_settings
from tests.probe.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Server

ROOT_ACCESS_KEY_ID = ACCESS_KEY_ID
ROOT_SECRET_ACCESS_KEY = SECRET_ACCESS_KEY
LIFECYCLE_DAY_S = "10"
"""short, so that the server looks at lifecycle rules every second"""


def frostbyte_program() -> Path:
    """The console script beside the running interpreter."""
    return Path(sys.executable).with_name("frostbyte")


@contextmanager
def running_frostbyte(
    home: Path,
    *,
    certificates: CertificateFiles | None = None,
    arguments: Sequence[str] = (),
    database: PostgresServer | None = None,
) -> Iterator[Endpoint]:
    """Start `frostbyte up` on home/data, yield its endpoint once it is ready, and stop it; its log is in home.

    AssertionError with the end of the log when it does not become ready."""
    if database is not None:
        config = home / "config.json"
        config.write_text(json.dumps(database_settings(database)))
        arguments = [*arguments, "--config", str(config)]
    server = Server(home, None, *arguments, certificates=certificates, as_users_do=True)
    server.environment["FROSTBYTE_LIFECYCLE_DAY_S"] = LIFECYCLE_DAY_S
    try:
        server.start()
        yield Endpoint(
            url=server.endpoint,
            access_key_id=ROOT_ACCESS_KEY_ID,
            secret_access_key=ROOT_SECRET_ACCESS_KEY,
            ca_file=certificates.ca if certificates else None,
        )
    finally:
        server.stop()
