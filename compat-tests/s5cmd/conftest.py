"""The client under test: s5cmd."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.clients.endpoint import Endpoint
from tests.clients.programs import run_program


class S5cmd:
    """`s5cmd` against one endpoint."""

    def __init__(self, program: str, endpoint: Endpoint) -> None:
        self._program = program
        self._endpoint = endpoint

    def run(self, *words: object, stdin: bytes | None = None, statuses: tuple[int, ...] = (0,)) -> bytes:
        """Run one command line; its standard output."""
        command = [self._program, "--endpoint-url", self._endpoint.url, *map(str, words)]
        return run_program(command, self._endpoint.environment(), stdin=stdin, statuses=statuses).stdout

    def listing(self, pattern: str) -> list[dict[str, Any]]:
        """`ls` of a pattern as parsed JSON lines."""
        return [json.loads(line) for line in self.run("--json", "ls", pattern).splitlines()]


@pytest.fixture(scope="session")
def s5cmd(endpoint: Endpoint, require_client: Callable[[str], str]) -> S5cmd:
    """s5cmd, pointed at the endpoint."""
    return S5cmd(require_client("s5cmd"), endpoint)
