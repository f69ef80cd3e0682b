"""Heartbeats: every master is told, one that is away delays no other, and all are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from storage.base import background
from storage.base.address import Address
from storage.base.errors import NotActiveMaster
from storage.base.internal_auth import report_token
from storage.datanode import wire
from storage.datanode.heartbeat import STANDBY_INTERVAL_S, Heartbeats
from storage.model import NodeReport, NodeState
from tests.storage.base.serving import serving
from tests.storage.datanode.nodes import CLUSTER_ID, NODE_KEY

NODE_ID = "1" * 32
REPORT = NodeReport(NODE_ID, CLUSTER_ID, "unix:/n", "z/h/1", 100, 50, 10, 1)


class Master:
    """Answers heartbeats as told, and remembers them."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[tuple[dict[bytes, bytes], NodeReport]] = asyncio.Queue()
        self.status = 200
        self.answer: bytes = wire.encode(wire.HeartbeatAnswer(7, 0.01))
        self.headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        assert (scope["method"], scope["path"]) == ("POST", "/v1/heartbeat")
        await self.reports.put((dict(scope["headers"]), msgspec.msgpack.decode(body, type=NodeReport)))
        headers = [(b"content-length", b"%d" % len(self.answer)), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer})

    async def hear(self) -> tuple[dict[bytes, bytes], NodeReport]:
        """The next report."""
        return await asyncio.wait_for(self.reports.get(), 60)


@asynccontextmanager
async def reporting(*masters: Address, hear: Callable[[NodeState], None] = lambda _: None) -> AsyncIterator[Heartbeats]:
    """Heartbeats that are stopped."""

    async def make_report() -> NodeReport:
        return REPORT

    heartbeats = Heartbeats(masters, NODE_ID, NODE_KEY, make_report, None, hear)
    heartbeats.start()
    try:
        yield heartbeats
    finally:
        await heartbeats.close()


async def test_a_master_is_told_again_and_again(tmp_path: Path) -> None:
    """At the interval it asks for, with the node's own token."""
    master = Master()
    async with serving(master, f"unix:{tmp_path / 'm'}") as address, reporting(address) as heartbeats:
        headers, report = await master.hear()
        assert report == REPORT
        assert headers[b"authorization"] == b"Bearer " + report_token(NODE_KEY).encode()
        assert headers[b"x-frostbyte-node"] == NODE_ID.encode()
        for _ in range(3):
            await master.hear()
        assert heartbeats.links[0].epoch == 7
        assert heartbeats.links[0].loop.interval_s == 0.01
        assert heartbeats.statuses[0].last_error == ""


async def test_a_master_that_is_away_delays_no_other(tmp_path: Path) -> None:
    """And is told as soon as it is there."""
    late, present = Master(), Master()
    late_path = tmp_path / "late"
    async with serving(present, f"unix:{tmp_path / 'm'}") as address:
        async with reporting(Address("unix", path=str(late_path)), address) as heartbeats:
            for _ in range(3):
                await present.hear()
            while not heartbeats.statuses[0].last_error:
                await present.hear()
            assert "late" in heartbeats.statuses[0].last_error
            async with serving(late, f"unix:{late_path}"):
                await late.hear()


async def test_a_master_that_refuses_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """409 with its reason, and an answer of another shape, are errors that are shown."""
    monkeypatch.setattr(background, "BACKOFF_FIRST_S", 0.001)
    master = Master()
    async with serving(master, f"unix:{tmp_path / 'm'}") as address, reporting(address) as heartbeats:
        good = master.answer
        master.status, master.answer = 409, wire.encode_failure("Refused", "of another cluster")
        await master.hear()
        await master.hear()
        assert "answered 409 of another cluster" in heartbeats.statuses[0].last_error
        master.status, master.answer = 200, b"\xff"
        await master.hear()
        await master.hear()
        assert "answered strangely" in heartbeats.statuses[0].last_error
        master.answer = good
        while heartbeats.statuses[0].last_error:
            await master.hear()
    assert heartbeats.links[0].epoch == 7


async def test_a_master_that_stands_by_is_told_slowly(tmp_path: Path) -> None:
    """It names the active one. One that knows of none is about to be active itself, and is asked again soon."""
    master = Master()
    refusal = (wire.ERROR_HEADER.encode(), NotActiveMaster.__name__.encode())
    async with serving(master, f"unix:{tmp_path / 'm'}") as address, reporting(address) as heartbeats:
        link = heartbeats.links[0]
        master.status, master.answer, master.headers = 503, wire.encode_failure(*map(bytes.decode, refusal)), [refusal]
        while not link.loop.status.last_error:
            await master.hear()
        assert link.loop.interval_s != STANDBY_INTERVAL_S
        master.headers.append((wire.ACTIVE_MASTER_HEADER.encode(), b"unix:/other"))
        while link.loop.status.last_error:
            await master.hear()
        assert link.loop.interval_s == STANDBY_INTERVAL_S


async def test_the_active_master_says_what_the_node_is(tmp_path: Path) -> None:
    """Each time; one that stands by, or that does not answer, says nothing. One that retired it says that it is gone,
    though it refuses the report."""
    active, standby, heard = Master(), Master(), list[NodeState]()
    standby.status, standby.answer = 503, wire.encode_failure(NotActiveMaster.__name__, "not active")
    standby.headers = [
        (wire.ERROR_HEADER.encode(), NotActiveMaster.__name__.encode()),
        (wire.ACTIVE_MASTER_HEADER.encode(), b"unix:/other"),
    ]
    async with serving(active, f"unix:{tmp_path / 'a'}") as first, serving(standby, f"unix:{tmp_path / 's'}") as second:
        async with reporting(first, second, hear=heard.append):
            for state in (NodeState.UP, NodeState.DRAINING, NodeState.SUSPECT):
                active.answer = wire.encode(wire.HeartbeatAnswer(7, 0.01, state))
                while not heard or heard[-1] is not state:
                    await active.hear()
            await standby.hear()
            # Another one is the active master now: what it says counts.
            active.status, active.answer, active.headers = standby.status, standby.answer, standby.headers
            standby.status, standby.headers = 200, []
            standby.answer = wire.encode(wire.HeartbeatAnswer(8, 0.01, NodeState.DRAINING))
            while heard[-1] is not NodeState.DRAINING:
                await standby.hear()
            standby.status = 409
            standby.answer = wire.encode_failure(wire.NODE_RETIRED, "was retired")
            standby.headers = [(wire.ERROR_HEADER.encode(), wire.NODE_RETIRED.encode())]
            while heard[-1] is not NodeState.GONE:
                await standby.hear()
    changes = [state for before, state in zip([None, *heard], heard, strict=False) if state is not before]
    up, draining, suspect, gone = NodeState.UP, NodeState.DRAINING, NodeState.SUSPECT, NodeState.GONE
    assert changes == [up, draining, suspect, draining, gone]


async def test_a_master_of_before_says_nothing_and_the_node_is_up(tmp_path: Path) -> None:
    """An answer without a state, as masters gave it before there was one."""
    master, heard = Master(), list[NodeState]()
    master.answer = wire.encode({"epoch": 7, "heartbeat_interval_s": 0.01})
    async with serving(master, f"unix:{tmp_path / 'm'}") as address, reporting(address, hear=heard.append):
        while not heard:
            await master.hear()
    assert set(heard) == {NodeState.UP}
