"""Laying out blobs anew while others change the same objects, nodes and layouts, or the last command goes astray."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.sweep import SweepSettings
from cluster.maintenance.sweeper import Sweeper
from cluster.nodes import NodePool
from storage.base.clock import SystemClock
from storage.base.errors import NoSuchKey, NotActiveMaster, Unavailable
from storage.base.ids import split_stored_index
from storage.metadata.commands import AcquireMasterLease, DeleteTarget, FenceSessions, Relayout, SetNodeClosed
from storage.model import NodeState
from tests.cluster.maintenance.rewrite_stage import staged


async def test_an_object_that_is_deleted_meanwhile(tmp_path: Path) -> None:
    """Nothing of it stays."""
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", os.urandom(900_000))

        async def delete(command: Relayout) -> object:
            await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
            return await world.metadata.apply(command)

        stage.observed.on_relayout = delete
        await stage.run("ec:4+2")
        assert (stage.rewriter.counts["rewritten"], stage.rewriter.counts["failed"]) == (0, 0)
        await stage.sweep()
        assert world.copies == 0
        with pytest.raises(NoSuchKey):
            await world.get(b"key")


async def test_a_node_that_is_closed_meanwhile(tmp_path: Path) -> None:
    """The layout is refused, taken back, and made again elsewhere."""
    data = os.urandom(900_000)
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", data)
        closed: list[int] = []

        async def close(command: Relayout) -> object:
            if not closed:
                closed.append(command.chunks[0].nodes[2])
                await world.metadata.apply(SetNodeClosed(world.nodes[closed[0]].node().report.node_id, True))
            return await world.metadata.apply(command)

        stage.observed.on_relayout = close
        await stage.run("ec:4+2")
        assert (stage.rewriter.counts["rewritten"], stage.rewriter.counts["failed"]) == (0, 1)
        assert stage.generations() == {0}
        draining = [
            node.node(NodeState.DRAINING if number in closed else NodeState.UP) for number, node in world.nodes.items()
        ]
        await world.map.change(draining)
        stage.rewriter.order()
        await stage.rewriter.run()
        assert stage.rewriter.counts["rewritten"] == 1
        assert closed[0] not in (await stage.blob()).chunks[0].nodes
        assert await world.get(b"key") == data


async def test_what_a_node_kept_that_does_not_count_is_left_to_the_survey(tmp_path: Path) -> None:
    """It is not deleted: a node that stalls might do that when a repair has named a good piece there."""
    data = os.urandom(3_000_000)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)
        node = stage.world.nodes[1]
        node.put_stores_other_bytes = True
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["rewritten"] == 1
        assert all(1 not in chunk.nodes for chunk in (await stage.blob()).chunks)
        assert max(split_stored_index(it.chunk_index)[0] for it in node.chunks) > 0
        assert node.deletes == 0
        assert await stage.world.get(b"key") == data


async def test_what_another_job_has_in_hand_is_left_alone(tmp_path: Path) -> None:
    """And tried again."""
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", os.urandom(600_000))
        with stage.claims.claim((await stage.blob()).blob_id):
            await stage.run("ec:4+2")
        assert (stage.rewriter.counts["rewritten"], stage.rewriter.counts["failed"]) == (0, 1)
        stage.rewriter.order()
        await stage.rewriter.run()
        assert stage.rewriter.counts["rewritten"] == 1


async def test_the_sweeper_takes_nothing_of_a_rewrite_under_way(tmp_path: Path) -> None:
    """A blob that has a row is no orphan, whatever its generation and however old: its session is over, too."""
    data = os.urandom(900_000)
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", data)
        await world.metadata.apply(FenceSessions(-1))
        pool = NodePool(bytes(32), SystemClock(), lambda node: world.nodes[node.number])
        ages = SweepSettings(orphan_age_ms=0, unknown_age_ms=0, passes_apart_ms=0, quarantine_ms=0)
        sweeper = Sweeper(world.metadata, pool, lambda: world.map.cluster_map, SystemClock(), ages, pause_s=0)

        async def sweep(command: Relayout) -> object:
            for _ in range(3):
                report = await sweeper.run_once(whole_pass=True)
                assert (report.suspected, report.quarantined, report.deleted) == (0, 0, 0)
            return await world.metadata.apply(command)

        stage.observed.on_relayout = sweep
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["rewritten"] == 1
        assert await world.get(b"key") == data


@pytest.mark.parametrize("applied", [True, False])
async def test_an_unknown_outcome_deletes_nothing(tmp_path: Path, applied: bool) -> None:
    """Applied, it is the layout; not applied, the pieces wait for the survey, and the next attempt is another."""
    data = os.urandom(900_000)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)

        async def lose_answer(command: Relayout) -> object:
            if applied:
                await stage.world.metadata.apply(command)
            raise Unavailable("lost", outcome="unknown")

        stage.observed.on_relayout = lose_answer
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["failed"] == 1
        assert stage.generations() == {0, 64}
        assert await stage.world.get(b"key") == data
        stage.observed.on_relayout = None
        stage.rewriter.order()
        await stage.rewriter.run()
        assert (await stage.blob()).generation == (64 if applied else 128)
        assert await stage.world.get(b"key") == data


@pytest.mark.parametrize("second", ["no", "refused"])
async def test_a_command_that_is_delivered_twice(tmp_path: Path, second: str) -> None:
    """What the second delivery says is not taken for the outcome."""
    data = os.urandom(900_000)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)

        async def deliver_twice(command: Relayout) -> object:
            assert await stage.world.metadata.apply(command)
            if second == "refused":
                raise NotActiveMaster("another one is")
            return await stage.world.metadata.apply(command)

        stage.observed.on_relayout = deliver_twice
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["rewritten"] == 1
        await stage.sweep()
        await stage.require_only(b"key")
        assert await stage.world.get(b"key") == data


async def test_a_deposed_master_takes_back_nothing_of_its_successor(tmp_path: Path) -> None:
    """It was stopped before its last command, woke up when the successor had laid out the same blob, and is refused."""
    data = os.urandom(900_000)
    async with staged(tmp_path, node_count=6) as stage:
        world = stage.world
        await world.put(b"key", data)
        terms = []
        for name in ("first", "second"):
            lease = await world.metadata.apply(AcquireMasterLease(name, f"unix:/{name}", 1, is_successor=False))
            terms.append(lease.term)
            await asyncio.sleep(0.01)
        assert terms[1] > terms[0]
        successor = stage.make_rewriter(lambda: terms[1], BlobClaims())
        stage.term = terms[0]

        async def take_over(command: Relayout) -> object:
            if command.term == terms[0]:
                await successor.run()
                assert successor.counts["rewritten"] == 1
            return await world.metadata.apply(command)

        stage.observed.on_relayout = take_over
        await stage.set("ec:4+2")
        with pytest.raises(NotActiveMaster):
            await stage.rewriter.run()
        assert await world.get(b"key") == data
        await stage.sweep()
        await stage.require_only(b"key")
