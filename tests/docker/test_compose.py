"""The containers' files. No image is built here: the compose file is parsed, every role accepts its configuration, and
the very commands of the services run as plain processes, with the volumes as directories."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from cluster.registry.config import load_config as load_master_config
from s3gw.config import load_config
from s3gw.worker_config import load_worker_config
from storage.datanode.config import load_config as load_datanode_config
from tests.probe.roles import CREDENTIALS, FROSTBYTE, running_role
from tests.probe.server import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, free_port
from tests.storage.chunks.chunk_files import list_chunks

DOCKER = Path(__file__).resolve().parents[2] / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROLES = ("metadata", "master", "datanode-1", "datanode-2", "datanode-3", "gateway")
READY = {"metadata": "ready", "master": "master ready", "gateway": "Frostbyte is ready"}


def dockerfile_of(name: str) -> str:
    """The text of the Dockerfile that a service is built from."""
    build = SERVICES[name]["build"]
    return (DOCKER / build["context"] / build["dockerfile"]).read_text()


def command_of(name: str) -> list[str]:
    """What a role's container runs."""
    words: list[str] = []
    for instruction in ("ENTRYPOINT", "CMD"):
        found = re.search(rf"^{instruction} (\[.*\])$", dockerfile_of(name), re.MULTILINE)
        assert found is not None
        words += json.loads(found[1])
    return words


def test_services_and_volumes_fit_together() -> None:
    """Every role is there, every volume is declared, every mounted file exists, every role waits for the keys."""
    assert set(SERVICES) == {"base", "prepare", *ROLES}
    for name, service in SERVICES.items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            assert (DOCKER / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"], mount
        if name in ROLES:
            assert service["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
            assert service["build"]["additional_contexts"] == {"frostbyte-base": "service:base"}
            assert dockerfile_of(name).splitlines()[1] == "FROM frostbyte-base"
            assert command_of(name)[:2] == ["frostbyte", name.partition("-")[0]]


def test_only_the_gateway_is_on_a_network() -> None:
    """And it publishes its port on loopback; datanodes see neither keys nor records."""
    assert [name for name in ROLES if SERVICES[name].get("network_mode") != "none"] == ["gateway"]
    assert SERVICES["gateway"]["ports"] == ["127.0.0.1:9000:9000"]
    for number in (1, 2, 3):
        mounts = SERVICES[f"datanode-{number}"]["volumes"]
        assert [mount.split(":")[0] for mount in mounts] == [
            f"./datanode-{number}.json",
            f"datanode-{number}",
            "run",
        ]


def test_every_role_accepts_its_configuration() -> None:
    """With the role's own parser; ids agree."""
    cluster_ids = {load_master_config(DOCKER / "master.json").cluster_id}
    cluster_ids.add(load_worker_config(DOCKER / "gateway.json").cluster_id)
    node_ids = set()
    for number in (1, 2, 3):
        config = load_datanode_config(DOCKER / f"datanode-{number}.json")
        cluster_ids.add(config.cluster_id)
        node_ids.add(config.node_id)
    assert len(node_ids) == 3
    assert len(cluster_ids) == 1
    assert cluster_ids.pop() in SERVICES["prepare"]["command"][0]
    assert load_config(DOCKER / "init.json", {}, {}).datanode_directories == ()


def test_images_hold_the_program_and_nothing_else() -> None:
    """What the base image copies is in the source tree, and let through by its ignore file."""
    base = dockerfile_of("base")
    copied = [word for line in base.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    ignored = (DOCKER / "base.Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    for name in copied:
        assert (DOCKER.parent / name).exists()
        assert f"!{name}" in ignored
    assert "USER frostbyte" in base


class Containers:
    """The services as processes: paths inside a container are rewritten to a directory for each volume."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        for volume in COMPOSE["volumes"]:
            (root / volume).mkdir(mode=0o700)

    def rewrite(self, name: str, text: str) -> str:
        """A container's paths → this test's. Longest first, so that no volume hides a deeper one."""
        mounts = [mount.split(":")[:2] for mount in SERVICES[name]["volumes"]]
        for source, inside in sorted(mounts, key=lambda mount: -len(mount[1])):
            outside = self.root / name / inside.lstrip("/") if source.startswith("./") else self.root / source
            text = text.replace(inside, str(outside))
        return text.replace("0.0.0.0:9000", f"127.0.0.1:{self.port}")

    def mount_files(self, name: str) -> None:
        """The configuration files of a service, with its paths rewritten."""
        for mount in SERVICES[name]["volumes"]:
            source, inside = mount.split(":")[:2]
            if source.startswith("./"):
                target = self.root / name / inside.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self.rewrite(name, (DOCKER / source).read_text()))

    def prepare(self) -> None:
        """What runs to its end before any role starts; a second time it changes nothing."""
        self.mount_files("prepare")
        script = self.rewrite("prepare", SERVICES["prepare"]["command"][0].replace("$$", "$"))
        script = script.replace("frostbyte ", f"{shlex.join(FROSTBYTE)} ").replace("10001:10001", str(os.getuid()))
        script = script.replace("/datanodes/$n", f"{self.root}/datanode-$n").replace(" /datanodes ", " ")
        for _ in range(2):
            command = [*SERVICES["prepare"]["entrypoint"], script]
            done = subprocess.run(
                command, env={**os.environ, **CREDENTIALS}, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0, done.stderr

    def start(self, running: ExitStack, name: str) -> None:
        """A role, until the test ends."""
        if name != "metadata":
            self.mount_files(name)
        words = [self.rewrite(name, word) for word in command_of(name)[1:]]
        ready = READY.get(name, "registered with")
        running.enter_context(running_role(self.root / f"{name}.log", ready, *words))


@pytest.mark.skipif(sys.platform != "linux", reason="containers share Unix sockets on Linux")
def test_the_services_work_together(tmp_path: Path) -> None:
    """Prepared, started in any order that compose may choose, an object goes in and out."""
    containers = Containers(tmp_path)
    containers.prepare()
    with ExitStack() as running:
        for name in ROLES:
            containers.start(running, name)
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{containers.port}",
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        )
        client.create_bucket(Bucket="boxed")
        client.put_object(Bucket="boxed", Key="object", Body=b"x" * 100_000)
        assert client.get_object(Bucket="boxed", Key="object")["Body"].read() == b"x" * 100_000
    stored = [list_chunks(tmp_path / f"datanode-{number}" / "data") for number in (1, 2, 3)]
    assert sorted(map(len, stored)) == [0, 1, 1]
    internal_key = (tmp_path / "home" / "internal.key").read_bytes().strip()
    for number in (1, 2, 3):
        held = b"".join(path.read_bytes() for path in (tmp_path / f"datanode-{number}").rglob("*") if path.is_file())
        assert internal_key not in held
