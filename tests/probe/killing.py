"""Processes of a running server that are killed while writers write, and what is asked of those who come after them."""

from __future__ import annotations

from collections.abc import Callable

from tests.probe.load import Writers, verify
from tests.probe.server import Server
from tests.probe.waiting import wait_until

REPLACED_WITHIN_S = 60.0


def kill_and_wait_for_another(server: Server, role: str) -> None:
    """Until the supervisor has replaced the killed child. A database opens as many backends as it is asked for."""
    count = len(server.pids(role))
    killed = server.kill(role)
    if role == "metadata" and server.database is not None:
        wait_until(lambda: killed not in server.pids(role), REPLACED_WITHIN_S, "the end of a backend")
    else:
        wait_until(lambda: len(set(server.pids(role)) - {killed}) >= count, REPLACED_WITHIN_S, f"a new {role}")


def kill_under_load(
    server: Server, role: str, writers: Writers, bucket: str, count: int, before_kill: Callable[[], None] = lambda: None
) -> None:
    """Twice, each time after so many more objects were acknowledged; in the end every acknowledged one is whole, and
    every other whole or not there."""
    with writers:
        for _ in range(2):
            writers.wait_for_acknowledged(count)
            before_kill()
            kill_and_wait_for_another(server, role)
            server.wait_ready()
        writers.wait_for_acknowledged(count)
    verify(server.client(), bucket, writers)
