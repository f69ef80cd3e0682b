"""The client under test: the aws command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.clients.programs import run_program


class AwsCli:
    """`aws` against one endpoint."""

    def __init__(self, program: str, endpoint: Endpoint, config: Path) -> None:
        self._program = program
        self._endpoint = endpoint
        self._environment = endpoint.environment() | {"AWS_CONFIG_FILE": str(config)}

    def s3(self, *words: object, stdin: bytes | None = None, statuses: tuple[int, ...] = (0,)) -> str:
        """`aws s3 …`; what it printed."""
        return self._run("s3", words, stdin, statuses).decode()

    def s3_bytes(self, *words: object) -> bytes:
        """`aws s3 …`; its standard output untouched."""
        return self._run("s3", words, None, (0,))

    def s3api(self, *words: object) -> Any:
        """`aws s3api … --output json`; the parsed answer, or None when it printed none."""
        printed = self._run("s3api", (*words, "--output", "json"), None, (0,))
        return json.loads(printed) if printed.strip() else None

    def _run(self, group: str, words: tuple[object, ...], stdin: bytes | None, statuses: tuple[int, ...]) -> bytes:
        command = [self._program, "--endpoint-url", self._endpoint.url, group, *map(str, words)]
        return run_program(command, self._environment, stdin=stdin, statuses=statuses, in_fork=True).stdout


@pytest.fixture(scope="session")
def aws(endpoint: Endpoint, require_client: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> AwsCli:
    """The aws command line, pointed at the endpoint and told to presign with SigV4.

    Version 1 still presigns with SigV2 in us-east-1 unless told so, as boto3 does."""
    config = tmp_path_factory.mktemp("aws-cli") / "config"
    config.write_text("[default]\ns3 =\n    signature_version = s3v4\n")
    return AwsCli(require_client("aws"), endpoint, config)


@pytest.fixture(scope="session")
def unconfigured_aws(endpoint: Endpoint, require_client: Callable[[str], str]) -> AwsCli:
    """The aws command line without any configuration file."""
    return AwsCli(require_client("aws"), endpoint, Path(os.devnull))
