"""The master's routes for its jobs, over a real socket: who may ask, what an order does, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.maintenance.survey_status import AffectedObject, NodeHoldings, SurveyStatus
from cluster.registry import maintenance
from cluster.registry.leadership import LEASE_TTL_S
from cluster.registry.maintenance import NodeScrub, ScrubRequest
from cluster.registry.state import Holdings
from storage.base.errors import NodeUnreachable, Unavailable
from storage.base.internal_auth import (
    MASTER_NODE_ID,
    ROLE_DATANODE,
    ROLE_MASTER,
    access_token,
    derive_node_key,
    report_token,
)
from storage.base.internal_client import InternalClient
from storage.datanode.wire import ScrubOrder
from storage.model import NodeState
from tests.cluster.registry.scene import INTERNAL_KEY, NODE_IDS, Scene, open_scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """Serving."""
    async with open_scene(tmp_path) as made:
        yield made


async def refused(scene: Scene, method: str, target: str, body: Any = None) -> str:
    """The status and the reason of a request that must fail."""
    with pytest.raises(Unavailable) as refusal:
        await scene.call(method, target, body)
    assert "\n" not in str(refusal.value)
    return str(refusal.value).partition("answered ")[2]


ROUTES = [
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs/tidy-up/run"),
    ("GET", "/v1/survey"),
    ("GET", "/v1/scrub"),
    ("POST", "/v1/scrub"),
    ("POST", f"/v1/nodes/{NODE_IDS[0]}/remove"),
]


@pytest.mark.parametrize(("method", "target"), ROUTES)
async def test_only_who_has_the_masters_token_is_answered(scene: Scene, method: str, target: str) -> None:
    """None, one of another internal key, a datanode's own."""
    (client,) = scene.master._masters
    stranger = derive_node_key(bytes(32), ROLE_MASTER, MASTER_NODE_ID)
    datanode = derive_node_key(INTERNAL_KEY, ROLE_DATANODE, NODE_IDS[0])
    for token in ("", access_token(stranger), access_token(datanode), report_token(datanode)):
        caller = InternalClient(client.address, token)
        assert (await caller.call(method, target)).status == 401
        await caller.close()
    assert scene.ordered == 0
    assert scene.state(1) is NodeState.UP


@pytest.mark.parametrize(("method", "target"), ROUTES)
async def test_a_master_that_stands_by_points_elsewhere(scene: Scene, method: str, target: str) -> None:
    """Its jobs do not run, and what it knows is old."""
    scene.leadership._is_alone = False
    scene.clock.advance(LEASE_TTL_S)
    assert (await refused(scene, method, target)).startswith("503")
    assert scene.ordered == 0


async def test_jobs_are_listed_with_how_far_they_are(scene: Scene) -> None:
    """Every field by its name."""
    assert await scene.call("GET", "/v1/jobs") == [
        {
            "name": "tidy-up",
            "runs": 0,
            "failures_in_a_row": 0,
            "last_run_ms": 0,
            "last_error": "",
            "counts": {"done": 3, "total": 9},
            "started_ms": 0,
        }
    ]


async def test_a_job_is_run_by_order(scene: Scene) -> None:
    """The answer says which run to wait for."""
    scene.job.start()
    ordered = await scene.call("POST", "/v1/jobs/tidy-up/run")
    assert ordered["name"] == "tidy-up"
    while (await scene.call("GET", "/v1/jobs"))[0]["runs"] < ordered["runs"]:
        await asyncio.sleep(0)
    assert scene.ordered == 1
    assert await refused(scene, "POST", "/v1/jobs/nothing/run") == "404: there is no job nothing; there are tidy-up"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/jobs/tidy-up/run"),
        ("POST", "/v1/jobs"),
        ("POST", "/v1/jobs/../run"),
        ("POST", f"/v1/jobs/{'a' * 33}/run"),
        ("POST", "/v1/jobs/TIDY/run"),
        ("POST", "/v1/survey"),
        ("DELETE", "/v1/scrub"),
        ("GET", f"/v1/nodes/{NODE_IDS[0]}/remove"),
        ("POST", "/v1/nodes/1/remove"),
    ],
)
async def test_targets_that_do_not_exist(scene: Scene, method: str, target: str) -> None:
    """404, and nothing is ordered."""
    assert (await refused(scene, method, target)).startswith("404")
    assert scene.ordered == 0


async def test_the_survey_is_told_as_it_is(scene: Scene) -> None:
    """Also before anything is known, and with keys that are no text."""
    assert (await scene.call("GET", "/v1/survey"))["walks"] == 0
    scene.survey.status = SurveyStatus(
        walks=2,
        lost=1,
        losses={"nodes": {0: 1, 1: 7}},
        nodes=(NodeHoldings(1, NODE_IDS[0], "up", named_pieces=3),),
        affected=(AffectedObject("lost", "bucket", "a\\xff", "null"),),
    )
    answer = await scene.master.call("GET", "/v1/survey")
    assert msgspec.json.decode(answer, type=SurveyStatus) == scene.survey.status


async def test_the_scrubs_of_all_nodes_and_who_does_not_answer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead one is not asked, a stalled one costs a deadline, each is named."""
    monkeypatch.setattr(maintenance, "NODE_DEADLINE_S", 0.05)
    scene.stores[2].hangs = True
    scene.stores[3].failure = NodeUnreachable("refused")
    answer = msgspec.json.decode(await scene.master.call("GET", "/v1/scrub"), type=list[NodeScrub])
    assert [(it.number, it.node_id, it.state) for it in answer] == [
        (number, NODE_IDS[number - 1], "up") for number in (1, 2, 3)
    ]
    assert answer[0].status == scene.stores[1].status
    assert [(it.status, it.error) for it in answer[1:]] == [(None, "it did not answer in 0.05 s"), (None, "refused")]
    await silence(scene, 20)
    answer = msgspec.json.decode(await scene.master.call("GET", "/v1/scrub"), type=list[NodeScrub])
    assert {it.error for it in answer} == {"it is dead"}


async def silence(scene: Scene, seconds: int) -> None:
    """Let time pass with ticks, while this master stays the active one."""
    for _ in range(seconds):
        scene.clock.advance(1)
        await scene.leadership.renew()
        await scene.registry.tick()


async def test_a_scrub_is_ordered_of_one_node_or_of_all(scene: Scene) -> None:
    """The order comes through as it was given."""
    told = await scene.call("POST", "/v1/scrub", ScrubRequest(begin=True))
    assert [it["number"] for it in told] == [1, 2, 3]
    assert all(store.orders == [ScrubOrder(0, True)] for store in scene.stores.values())
    told = await scene.call("POST", "/v1/scrub", ScrubRequest(5 << 20, node_id=NODE_IDS[1]))
    assert [it["number"] for it in told] == [2]
    assert [len(store.orders) for store in scene.stores.values()] == [1, 2, 1]
    assert scene.stores[2].orders[1] == ScrubOrder(5 << 20, False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "400: not an order to scrub"),
        (b"[]", "400: not an order to scrub"),
        (b"[" * 900, "400: not an order to scrub"),
        ({"pace_bytes_per_s": -1}, "400: not an order to scrub"),
        ({"pace_bytes_per_s": 1 << 41}, "400: not an order to scrub"),
        ({"speed": 3}, "400: not an order to scrub"),
        ({"node_id": "f" * 32}, "404: there is no node " + "f" * 32),
        ({"node_id": "f" * 990}, "404: there is no node " + "f" * 64),
        (b" " * 1_025, "413: a body of this request has at most"),
    ],
)
async def test_orders_to_scrub_that_are_none(scene: Scene, body: Any, reason: str) -> None:
    """One line each, and no node hears of it."""
    assert (await refused(scene, "POST", "/v1/scrub", body)).startswith(reason)
    assert not any(store.orders for store in scene.stores.values())


async def test_a_node_is_removed_in_steps(scene: Scene) -> None:
    """Each order goes as far as it can, and says what it waits for; the survey's figures decide."""
    target = f"/v1/nodes/{NODE_IDS[0]}/remove"
    assert "drain it first" in await refused(scene, "POST", target)
    await scene.call("POST", f"/v1/nodes/{NODE_IDS[0]}/drain")
    assert "the walk that is under way" in await refused(scene, "POST", target)
    scene.survey.found[1] = Holdings(5, 0, is_final=False)
    assert "409: " in await refused(scene, "POST", target)
    assert "5 pieces are left" in await refused(scene, "POST", target)
    scene.survey.found[1] = Holdings(0, 0, is_final=False)
    assert "one more walk" in await refused(scene, "POST", target)
    scene.survey.found[1] = Holdings(0, 0, is_final=True)
    assert await scene.call("POST", target) == {"node_id": NODE_IDS[0], "state": "gone"}
    assert scene.state(1) is NodeState.GONE
    assert await scene.call("POST", target) == {"node_id": NODE_IDS[0], "state": "gone"}


async def test_force_does_not_wait_for_pieces_and_never_loses_chunks(scene: Scene) -> None:
    """As long as every chunk can be read without them."""
    target = f"/v1/nodes/{NODE_IDS[1]}/remove"
    await scene.call("POST", f"/v1/nodes/{NODE_IDS[1]}/drain")
    scene.survey.found[2] = Holdings(5, 1, is_final=True)
    assert "1 chunks cannot be read without" in await refused(scene, "POST", f"{target}?force=1")
    scene.survey.found[2] = Holdings(5, 0, is_final=False)
    assert "5 pieces are left" in await refused(scene, "POST", f"{target}?force=0")
    assert "one more walk" in await refused(scene, "POST", f"{target}?force=1")
    scene.survey.found[2] = Holdings(5, 0, is_final=True)
    assert (await scene.call("POST", f"{target}?force=1"))["state"] == "gone"


@pytest.mark.parametrize("query", ["?force=2", "?force=1&force=1", "?f=1", "?force", "?" + "a=1&" * 20])
async def test_removals_that_cannot_be(scene: Scene, query: str) -> None:
    """What is not understood is not guessed at."""
    assert (await refused(scene, "POST", f"/v1/nodes/{NODE_IDS[0]}/remove{query}")).startswith("400: force is")
    assert "there is no node" in await refused(scene, "POST", f"/v1/nodes/{'f' * 32}/remove")
    assert scene.state(1) is NodeState.UP
