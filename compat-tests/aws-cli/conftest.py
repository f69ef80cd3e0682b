"""The client under test: the aws command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.clients.programs import run_program


class AwsCli:
    """`aws` against one endpoint."""

    def __init__(self, program: str, endpoint: Endpoint) -> None:
        self._program = program
        self._endpoint = endpoint

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
        return run_program(command, self._endpoint.environment(), stdin=stdin, statuses=statuses).stdout


@pytest.fixture(scope="session")
def aws(endpoint: Endpoint, require_client: Callable[[str], str]) -> AwsCli:
    """The aws command line, pointed at the endpoint."""
    return AwsCli(require_client("aws"), endpoint)
