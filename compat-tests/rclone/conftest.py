"""The client under test: rclone, configured by its environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.clients.endpoint import REGION, Endpoint
from tests.clients.programs import run_program


class Rclone:
    """`rclone` with one remote named `frost`."""

    def __init__(self, program: str, endpoint: Endpoint) -> None:
        self.program = program
        remote = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": endpoint.url,
            "REGION": REGION,
            "ACCESS_KEY_ID": endpoint.access_key_id,
            "SECRET_ACCESS_KEY": endpoint.secret_access_key,
        }
        self.environment = endpoint.environment()
        self.environment |= {f"RCLONE_CONFIG_FROST_{name}": text for name, text in remote.items()}
        self.environment |= {"RCLONE_CONFIG": "", "RCLONE_STATS": "0"}
        if endpoint.ca_file:
            self.environment["RCLONE_CA_CERT"] = str(endpoint.ca_file)

    def run(self, *words: object, stdin: bytes | None = None, statuses: tuple[int, ...] = (0,)) -> str:
        """Run one command; what it printed on standard output."""
        command = [self.program, *map(str, words)]
        return run_program(command, self.environment, stdin=stdin, statuses=statuses).stdout.decode()


@pytest.fixture(scope="session")
def rclone(endpoint: Endpoint, require_client: Callable[[str], str]) -> Rclone:
    """rclone, pointed at the endpoint."""
    return Rclone(require_client("rclone"), endpoint)
