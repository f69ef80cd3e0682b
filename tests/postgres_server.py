"""A real PostgreSQL for tests, started and stopped by them; or the one that FROSTBYTE_TEST_POSTGRES_DSN names.

The server's binaries are Debian's or whatever `pg_config` or PATH leads to. PostgreSQL refuses to run as root, so root
starts it as `postgres` or `nobody`, in a directory of theirs. It listens on a Unix socket only. One server serves a
test process (of pytest-xdist: each worker has its own) and ends with it; every test has a database to itself, emptied
and handed on afterwards, since making one costs ten times as much.

fsync is off in the shared server, for speed: its processes are killed in tests, its machine is not. A test about what
survives more than that starts a server of its own with `fsync=True`.

Where there is no PostgreSQL the tests skip and say so; with CI=true they fail.
"""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

DSN_VARIABLE = "FROSTBYTE_TEST_POSTGRES_DSN"
USER = "frostbyte"
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 30.0

_POLL_S = 0.01
_SERVER_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "log_min_messages": "fatal",  # refusals of commands are errors to the server
    "autovacuum_naptime": "5s",
    "max_wal_size": "256MB",
}

_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'frostbyte'::regnamespace AND relkind = 'r'"
_SEQUENCES = "SELECT relname FROM pg_class WHERE relnamespace = 'frostbyte'::regnamespace AND relkind = 'S'"
_RESEED = (
    "INSERT INTO frostbyte.meta VALUES ('schema_version', (SELECT $1::bigint)), ('configuration_sequence', 1),"
    " ('epoch', 1), ('journal_sequence', 0), ('server_incarnation', frostbyte.server_incarnation())"
)


class PostgresMissingError(Exception):
    """The message says what was looked for."""


def find_binaries() -> Path:
    """The directory of initdb and postgres. PostgresMissingError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    pg_config = shutil.which("pg_config")
    if pg_config:
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        found.append(Path(told.stdout.strip() or "/"))
    in_path = shutil.which("postgres")
    if in_path:
        found.append(Path(in_path).parent)
    for directory in found:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise PostgresMissingError(f"no PostgreSQL server (Debian: postgresql) and no {DSN_VARIABLE}")


class PostgresServer:
    """One server in a directory of its own, new or (standby_of) a streaming copy of another."""

    def __init__(
        self,
        *,
        fsync: bool = False,
        settings: dict[str, str] | None = None,
        standby_of: PostgresServer | None = None,
    ) -> None:
        self.binaries = find_binaries()
        self.directory = Path(tempfile.mkdtemp(prefix="frostbyte-pg-", dir="/tmp"))
        self.data = self.directory / "data"
        self.settings = {**_SERVER_SETTINGS, "fsync": "on" if fsync else "off", **(settings or {})}
        self._as_user = _drop_privileges(self.directory)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            if standby_of is None:
                self._initialise()
            else:
                self._follow(standby_of)
            self.start()
        except BaseException:
            self.stop()
            raise

    def dsn(self, database: str = "postgres", socket_directory: Path | None = None) -> str:
        """socket_directory: of something in between, such as a proxy."""
        host = quote(str(socket_directory or self.directory), safe="")
        return f"postgresql://{USER}@/{database}?host={host}"

    def start(self) -> None:
        """Ready when it returns."""
        arguments = [f"-c{name}={value}" for name, value in self.settings.items()]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, "-k", self.directory, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self._as_user,
            )
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL did not start: {(self.directory / 'log').read_text()}")
            time.sleep(_POLL_S)

    @property
    def version(self) -> str:
        """As `15.4`."""
        told = subprocess.run([self.binaries / "postgres", "--version"], capture_output=True, text=True, check=True)
        return told.stdout.split()[2]

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def end(self, signal_number: int = signal.SIGINT) -> None:
        """SIGINT: in order; SIGQUIT and SIGKILL: as a crash would. The data stay."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal_number)
            try:
                self._process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(STOP_DEADLINE_S)

    async def create_database(self, name: str) -> str:
        """→ its DSN."""
        connection = await asyncpg.connect(self.dsn())
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return self.dsn(name)

    def stop(self) -> None:
        """End it at once and remove its directory."""
        self.end(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def promote(self) -> None:
        """A standby takes writes when it returns."""
        self._run("pg_ctl", "promote", "-w", "-D", self.data)

    def _initialise(self) -> None:
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")

    def _follow(self, primary: PostgresServer) -> None:
        whose = ("-h", primary.directory, "-U", USER)
        self._run("pg_basebackup", "-D", self.data, *whose, "-R", "-X", "stream", "-c", "fast", "--no-sync")

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [self.binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.directory,
            check=True,
            **self._as_user,
        )

    def _is_ready(self) -> bool:
        """The eighth line of postmaster.pid says so."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == self.pid


def server_processes(server: PostgresServer) -> list[int]:
    """The postmaster first, so that it starts no further one."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    return [server.pid, *map(int, children)]


def _drop_privileges(directory: Path) -> dict[str, Any]:
    """What to start a process with so that it is not root, which then owns the directory."""
    directory.chmod(0o755)
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(directory, account.pw_uid, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class TestDatabases:
    """Databases of one server, each of one test at a time."""

    __test__ = False

    def __init__(self, server: PostgresServer | None, given_dsn: str = "") -> None:
        self._server = server
        self._given_dsn = given_dsn
        self._free: list[str] = []
        self._count = 0

    @property
    def server(self) -> PostgresServer:
        """Skips the test when the database is one that the user named."""
        if self._server is None:
            pytest.skip(f"needs a server of its own, and {DSN_VARIABLE} names one")
        return self._server

    async def take(self) -> str:
        """The DSN of an empty database, without tables or with."""
        if self._free:
            return self._free.pop()
        if self._server is None:
            dsn = await _for_this_process(self._given_dsn)
            await _empty(dsn)
            return dsn
        self._count += 1
        return await self._server.create_database(f"test_{self._count}")

    async def give_back(self, dsn: str, *, is_spoiled: bool = False) -> None:
        """After everybody else has hung up. is_spoiled: the test changed more than rows."""
        if is_spoiled:
            connection = await asyncpg.connect(dsn)
            await connection.execute("DROP SCHEMA IF EXISTS frostbyte CASCADE")
            await connection.close()
        await _empty(dsn)
        self._free.append(dsn)


async def _for_this_process(dsn: str) -> str:
    """Of a given database: itself, or one beside it for each worker of pytest-xdist, which it must be able to make."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if not worker:
        return dsn
    parts = urlsplit(dsn)
    name = f"{parts.path.lstrip('/')}_{worker}"
    connection = await asyncpg.connect(dsn)
    if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
        await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    return urlunsplit(parts._replace(path=f"/{name}"))


async def _empty(dsn: str) -> None:
    """As just migrated: deleting a few rows is much cheaper than TRUNCATE or a new database."""
    connection = await asyncpg.connect(dsn)
    try:
        version = None
        if await connection.fetchval("SELECT to_regclass('frostbyte.meta')") is not None:
            version = await connection.fetchval("SELECT value FROM frostbyte.meta WHERE name = 'schema_version'")
        if version is None:
            return
        async with connection.transaction():
            for (table,) in await connection.fetch(_TABLES):
                await connection.execute(f"DELETE FROM frostbyte.{table}")
            for (sequence,) in await connection.fetch(_SEQUENCES):
                await connection.execute(f"ALTER SEQUENCE frostbyte.{sequence} RESTART")
            await connection.execute("SET LOCAL search_path = frostbyte")
            await connection.execute(_RESEED, version)
    finally:
        await connection.close()


@functools.cache
def _start_shared() -> TestDatabases | str:
    """The databases of this process, or why there are none."""
    given_dsn = os.environ.get(DSN_VARIABLE)
    if given_dsn:
        return TestDatabases(None, given_dsn)
    try:
        server = PostgresServer()
    except PostgresMissingError as missing:
        return str(missing)
    atexit.register(server.stop)
    return TestDatabases(server)


def shared_databases() -> TestDatabases:
    """Starts the server of this process at the first call. Skips the test, or fails it with CI=true, without one."""
    started = _start_shared()
    if isinstance(started, str):
        if os.environ.get("CI") == "true":
            pytest.fail(started)
        pytest.skip(started)
    return started
