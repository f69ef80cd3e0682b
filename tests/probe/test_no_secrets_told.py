"""Nothing in the clear outside the data either: not in arguments, environments, logs or core dumps."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.probe.conftest import FAST_SWEEP
from tests.probe.server import SECRET_ACCESS_KEY, Server
from tests.probe.slow import presign
from tests.probe.test_sealed_at_rest import LARGE, MARKER, opened_keys, put_the_secret
from tests.probe.waiting import wait_until

STARTED_WAIT_S = 60.0
ROLES = ("metadata", "master", "datanode", "gateway")


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[Server]:
    """At FROSTBYTE_LOG=debug."""
    running = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "2")
    running.environment["FROSTBYTE_LOG"] = "debug"
    try:
        running.start()
        yield running
    finally:
        running.stop()


def secrets_of(data: Path) -> list[bytes]:
    """Every secret of the server: bytes of keys in three spellings, and texts."""
    keys = [base64.b64decode((data / name).read_bytes()) for name in ("master.key", "internal.key")]
    roles = [json.loads(file.read_text()) for file in data.glob("run/datanode-*.json")]
    keys += [*(base64.b64decode(role["node_key"]) for role in roles), *opened_keys(data)]
    spelled = [spelling for key in keys for spelling in (key, key.hex().encode(), base64.b64encode(key))]
    return [*spelled, SECRET_ACCESS_KEY.encode(), MARKER]


def test_arguments_environments_and_debug_logs(talkative: Server) -> None:
    """After requests that succeed, fail and are refused. The root secret is in the environment of the supervisor, to
    which the operator gave it; children are not given it."""
    server = talkative
    put_the_secret(server)
    client = server.client()
    client.get_object(Bucket="secret", Key="large")["Body"].read()
    signed = presign(server, "get_object", "secret", "large")
    signature = signed.split("X-Amz-Signature=")[1][:64].encode()
    assert urlopen(signed).read() == LARGE
    with pytest.raises(HTTPError):
        urlopen(signed[:-1] + ("0" if signed[-1] != "0" else "1"))
    told: dict[str, bytes] = {"log": server.log.read_bytes()}
    for role in ROLES:
        for pid in server.pids(role):
            told[f"arguments of {role}"] = Path(f"/proc/{pid}/cmdline").read_bytes()
            told[f"environment of {role}"] = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"debug" in told["log"].lower()
    found = [
        (where, secret[:8]) for secret in secrets_of(server.data) for where, text in told.items() if secret in text
    ]
    assert found == []
    assert signature not in told["log"], "a presigned URL is a key to its object"
    assert hashlib.sha256(SECRET_ACCESS_KEY.encode()).hexdigest().encode() not in told["log"]


def test_no_core_dumps(talkative: Server) -> None:
    """A core dump would hold keys and plaintext."""
    for role in ("gateway", "master", "datanode"):
        for pid in server_pids(talkative, role):
            # One worker makes the server ready; another may still be importing, and holds nothing yet.
            wait_until(lambda pid=pid: core_limits(pid) == ["0", "0"], STARTED_WAIT_S, f"no core dumps of a {role}")


def core_limits(pid: int) -> list[str]:
    """Soft and hard, as the kernel shows them."""
    limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(it for it in limits if it.startswith("Max core file size")).split()[4:6]


def test_a_master_key_in_the_environment_reaches_those_that_need_it(tmp_path: Path) -> None:
    """Gateways, to read and write, and the owner of the records, which seals their journal; never a datanode. Those
    that are not given it were forked by a process that never knew it."""
    server = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "1")
    master_key = base64.b64encode(hashlib.sha256(b"no bytes that a program has anyway").digest()).decode()
    server.environment["FROSTBYTE_MASTER_KEY"] = master_key
    try:
        server.start()
        put_the_secret(server)
        holders = {
            role
            for role in ROLES
            for pid in server_pids(server, role)
            if master_key.encode() in Path(f"/proc/{pid}/environ").read_bytes()
        }
        assert holders == {"gateway", "metadata"}
        spellings = (master_key.encode(), base64.b64decode(master_key))
        roles = {role: server_pids(server, role) for role in ROLES}
        remembering = {role for role, pids in roles.items() for pid in pids if holds(pid, spellings)}
        assert remembering == {"gateway", "metadata"}
        assert not (server.data / "master.key").exists()
    finally:
        server.stop()


def holds(pid: int, secrets: Sequence[bytes]) -> bool:
    """Whether any of them is anywhere in the memory that the process can write to."""
    ranges = re.findall(r"^(\w+)-(\w+) rw\S+ \w+ \S+ 0 ", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    assert ranges
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for start, end in ((int(start, 16), int(end, 16)) for start, end in ranges):
            memory.seek(start)
            with suppress(OSError):  # what cannot be read, as vvar, is no memory
                content = memory.read(end - start)
                if any(secret in content for secret in secrets):
                    return True
    return False


def server_pids(server: Server, role: str) -> list[int]:
    """At least one."""
    pids = server.pids(role)
    assert pids
    return pids
