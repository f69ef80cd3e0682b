"""The wall clock of the machine is set forward and back beneath a server at work: nothing that lives is fenced, nothing
is swept that is read or referenced, nothing acknowledged is lost, and what is garbage goes in the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probe.account import Account, verify_account
from tests.probe.clocks import WallClock, explain_missing
from tests.probe.conftest import FAST_SWEEP
from tests.probe.load import body_of
from tests.probe.server import Server
from tests.probe.slow import Exchange, presign
from tests.probe.test_restart_and_kill import SWEEP_WAIT_S, leftovers
from tests.probe.test_stalls import session_states
from tests.probe.waiting import wait_until

BUCKET = "clock"
SIZE = 24 << 20
JUMPS_S = (600, -600, 0, 800, -800, 0)
"""far beyond every lease and age here, and within the quarter of an hour that signatures may be off"""
CAUGHT_UP_S = 850
"""later than any time that was ever told: a sweep waits until the clock has caught up with what was stamped before"""


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[tuple[Server, WallClock]]:
    """A server whose clock is the test's."""
    reason = explain_missing()
    if reason is not None:
        pytest.skip(reason)
    clock = WallClock(tmp_path)
    running = Server(tmp_path / "frost", FAST_SWEEP, "--workers", "2")
    running.environment |= clock.environment
    try:
        running.start()
        yield running, clock
    finally:
        running.stop()


@pytest.mark.timeout(200)
def test_clock_jumps_under_load(jumping: tuple[Server, WallClock]) -> None:
    """Writers go on through every jump, a slow reader keeps what was deleted beneath it, and in the end only what is
    referenced is left."""
    server, clock = jumping
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    body = body_of("old", SIZE)
    client.put_object(Bucket=BUCKET, Key="old", Body=body)
    with Account(BUCKET, client, threads_each=2) as account:
        with Exchange(presign(server, "get_object", BUCKET, "old"), "GET") as slow:
            assert slow.status() == 200
            got = slow.read(1 << 20)
            client.delete_object(Bucket=BUCKET, Key="old")
            for offset_s in JUMPS_S:
                clock.jump(offset_s)
                account.wait_for_more(25)
                got += slow.read(1 << 20)
            got += slow.read()
            assert got == body
    assert not account.refused, account.refused[:3]
    assert "fenced" not in session_states(server)
    verify_account(account, BUCKET, client)
    for key in account.acknowledged:
        client.delete_object(Bucket=BUCKET, Key=key)
    clock.jump(CAUGHT_UP_S)
    server.restart()
    wait_until(lambda: not leftovers(server), SWEEP_WAIT_S, "sweeping")
