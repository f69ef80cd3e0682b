"""nginx and HAProxy, with the samples of docker/, in front of two gateways: what clients send arrives as it was signed,
bodies pass without touching a disk, and a killed gateway costs nobody more than a second try."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.probe.account import Account, verify_account
from tests.probe.gateways import MANY_GATEWAYS, WAIT_S, Gateway, Hosts
from tests.probe.load import body_of
from tests.probe.server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, free_port

DOCKER = Path(__file__).resolve().parents[2] / "docker"
START_S = 60.0
LARGE_BYTES = 40 << 20
PART_BYTES = 8 << 20
PROXY_ADDRESS = "127.0.0.1"
DOMAIN = "s3.frostbyte.test"
AWKWARD_KEYS = ("a//b/../c", "plus+and space", "ümlaut/%41%2f", "tilde~'(*)!")

pytestmark = [pytest.mark.xdist_group(MANY_GATEWAYS), pytest.mark.timeout(300)]


class Proxy:
    """A running proxy in front of two gateways that believe it."""

    def __init__(self, kind: str, port: int, directory: Path, hosts: Hosts, gateways: tuple[Gateway, Gateway]) -> None:
        self.kind = kind
        self.port = port
        self.directory = directory
        self.hosts = hosts
        self.gateways = gateways

    def client(self, attempts: int = 1) -> Any:
        """Of boto3, at the proxy."""
        return boto3.client(
            "s3",
            endpoint_url=f"http://{PROXY_ADDRESS}:{self.port}",
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            config=Config(
                signature_version="s3v4",
                retries={"total_max_attempts": attempts, "mode": "standard"},
                s3={"addressing_style": "path"},
                read_timeout=60,
            ),
        )


def find_program(name: str) -> str:
    """Skips without it, or fails with CI=true."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")
    return found


def fill_sample(name: str, listen: str, port: int, gateways: tuple[Gateway, Gateway]) -> str:
    """The sample with this machine's ports, and nothing else changed."""
    text = (DOCKER / name).read_text()
    for number, gateway in enumerate(gateways, 1):
        assert f"gateway-{number}.lan:9000" in text
        text = text.replace(f"gateway-{number}.lan:9000", f"127.0.0.1:{gateway.port}")
    assert listen in text
    return text.replace(listen, f"{listen.removesuffix('80').removesuffix(':')}{PROXY_ADDRESS}:{port}", 1)


def prepare_nginx(directory: Path, port: int, gateways: tuple[Gateway, Gateway]) -> list[str]:
    """Its temporary files would go where nobody may write."""
    (directory / "frostbyte.conf").write_text(fill_sample("nginx.conf", "    listen 80", port, gateways))
    places = "".join(
        f"{name}_temp_path {directory}/temporary-{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = directory / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/log;"
        f"events {{}} http {{ access_log off; {places} include {directory}/frostbyte.conf; }}"
    )
    return [find_program("nginx"), "-c", str(file), "-p", str(directory), "-e", str(directory / "log")]


def prepare_haproxy(directory: Path, port: int, gateways: tuple[Gateway, Gateway]) -> list[str]:
    """As it is."""
    file = directory / "haproxy.cfg"
    file.write_text(fill_sample("haproxy.cfg", "    bind :80", port, gateways))
    return [find_program("haproxy"), "-f", str(file)]


PREPARE: dict[str, Callable[[Path, int, tuple[Gateway, Gateway]], list[str]]] = {
    "nginx": prepare_nginx,
    "haproxy": prepare_haproxy,
}


@contextmanager
def running_proxy(kind: str, directory: Path, port: int, gateways: tuple[Gateway, Gateway]) -> Iterator[None]:
    """Until the block is left; it answers when it begins."""
    command = PREPARE[kind](directory, port, gateways)
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=directory)
    try:
        end_s = time.monotonic() + START_S
        while status_at(port) != 200:
            assert process.poll() is None and time.monotonic() < end_s, (directory / "output").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(START_S)


def status_at(port: int, path: str = "/-/ready") -> int:
    """0 when nobody answers."""
    connection = http.client.HTTPConnection(PROXY_ADDRESS, port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@pytest.fixture(scope="module", params=list(PREPARE))
def proxy(
    request: pytest.FixtureRequest, hosts: tuple[Hosts, Gateway, Gateway], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Each with two gateways of its own."""
    cluster, kind = hosts[0], str(request.param)
    find_program(kind)
    directory, port = tmp_path_factory.mktemp(kind), free_port()
    settings = {"trusted_proxies": [PROXY_ADDRESS], "domains": [DOMAIN]}
    first, second = (cluster.start_gateway(f"{kind}-{number}", **settings) for number in (1, 2))
    with ExitStack() as running:
        running.enter_context(running_proxy(kind, directory, port, (first, second)))
        yield Proxy(kind, port, directory, cluster, (first, second))


def test_requests_arrive_as_they_were_signed(proxy: Proxy) -> None:
    """Any key, user metadata, a listing, a copy, a presigned GET and PUT, and a bucket in the host name."""
    client, bucket = proxy.client(), f"signed-{proxy.kind}"
    client.create_bucket(Bucket=bucket)
    for key in AWKWARD_KEYS:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"under_score": "kept"})
        found = client.get_object(Bucket=bucket, Key=key)
        assert (found["Body"].read(), found["Metadata"]) == (key.encode(), {"under_score": "kept"})
        url = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            assert answer.read() == key.encode()
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    assert {entry["Key"] for entry in listed} == set(AWKWARD_KEYS)
    client.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": AWKWARD_KEYS[2]})
    url = client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "presigned"})
    put = urllib.request.Request(url, data=body_of("presigned", 300_000), method="PUT")
    with urllib.request.urlopen(put, timeout=WAIT_S) as answer:
        assert answer.status == 200
    assert client.get_object(Bucket=bucket, Key="presigned")["Body"].read() == body_of("presigned", 300_000)
    with pytest.raises(ClientError, match="404"):
        client.head_object(Bucket=bucket, Key="nothing")
    assert status_of_virtual_host(proxy, bucket) == 403  # no signature, but it is known which bucket is meant
    assert status_at(proxy.port, "/-/metrics") == 404


def status_of_virtual_host(proxy: Proxy, bucket: str) -> int:
    """An unsigned GET of an object, the bucket in the host's name."""
    connection = http.client.HTTPConnection(PROXY_ADDRESS, proxy.port, timeout=WAIT_S)
    try:
        connection.request("GET", "/presigned", headers={"Host": f"{bucket}.{DOMAIN}"})
        return connection.getresponse().status
    finally:
        connection.close()


def test_large_bodies_pass_without_a_disk(proxy: Proxy, tmp_path: Path) -> None:
    """Up and down in parallel parts, and as one PUT; the proxy wrote nothing."""
    client, bucket = proxy.client(), f"large-{proxy.kind}"
    client.create_bucket(Bucket=bucket)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(body_of("large", LARGE_BYTES))
    before = everything_below(proxy.directory)
    parts = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)
    client.upload_file(str(source), bucket, "parts", Config=parts)
    client.download_file(bucket, "parts", str(target), Config=parts)
    assert target.read_bytes() == source.read_bytes()
    assert client.head_object(Bucket=bucket, Key="parts")["ETag"].endswith(f'-{LARGE_BYTES // PART_BYTES}"')
    with source.open("rb") as body:
        client.put_object(Bucket=bucket, Key="whole", Body=body)
    assert client.get_object(Bucket=bucket, Key="whole")["Body"].read() == source.read_bytes()
    assert everything_below(proxy.directory) == before


def everything_below(directory: Path) -> dict[str, int]:
    """Names and times of change: of a directory, what was made in it and removed again shows as well."""
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_dir()}


def test_a_client_that_waits_for_100_gets_it(proxy: Proxy) -> None:
    """Before it sends its body. HAProxy hands the question through, so that a refusal comes instead of it."""
    client, bucket = proxy.client(), f"waits-{proxy.kind}"
    client.create_bucket(Bucket=bucket)
    url = client.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "waited"})
    body = body_of("waited", 200_000)
    assert send_expecting(proxy, url, body) == (100, 200)
    assert client.get_object(Bucket=bucket, Key="waited")["Body"].read() == body
    if proxy.kind == "haproxy":
        assert send_expecting(proxy, f"http://x/{bucket}/unsigned", body) == (403, 0)


def send_expecting(proxy: Proxy, url: str, body: bytes) -> tuple[int, int]:
    """The status of the first answer, and of the one after the body where the first was 100."""
    parts = urlsplit(url)
    head = (
        f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {PROXY_ADDRESS}:{proxy.port}\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((PROXY_ADDRESS, proxy.port), timeout=WAIT_S) as connection:
        connection.sendall(head.encode())
        answers = connection.makefile("rb")
        first = int(answers.readline().split()[1])
        if first != 100:
            return first, 0
        assert answers.readline() == b"\r\n"
        connection.sendall(body)
        return first, int(answers.readline().split()[1])


def test_a_killed_gateway_costs_a_second_try(proxy: Proxy) -> None:
    """kill -9 of one of two under load: a client that asks again, as they all do, sees no failure, and everything
    acknowledged is there."""
    bucket = f"killed-{proxy.kind}"
    client = proxy.client(attempts=6)
    client.create_bucket(Bucket=bucket)
    first, _ = proxy.gateways
    with Account(bucket, client, threads_each=4) as account:
        account.wait_for_more(20)
        for pid in (first.process.pid, *first.workers()):
            os.kill(pid, signal.SIGKILL)
        account.wait_for_more(30)
    assert account.refused == []
    verify_account(account, bucket, client)
