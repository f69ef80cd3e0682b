"""Laying out blobs anew, over a whole gateway's objects: they stay whole whatever fails, and nothing else stays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.rewriter import Rewriter
from cluster.maintenance.sweep import SweepSettings, choose_forgettable, plan_released
from cluster.maintenance.sweeper import Sweeper
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from cluster.objectstore import CopySource
from cluster.redundancy import choose_for_size, parse_redundancy
from storage.base.clock import SystemClock
from storage.base.errors import NoSuchKey, NotActiveMaster, Unavailable
from storage.base.ids import ChunkId, split_stored_index, stored_chunk_id
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import (
    REDUNDANCY_SETTING,
    REWRITE_SETTING,
    AcquireMasterLease,
    Command,
    DeleteTarget,
    FenceSessions,
    ForgetBlobs,
    PutBucketSetting,
    RegisterNode,
    Relayout,
    SetNodeClosed,
)
from storage.metadata.interface import Metadata
from storage.model import Blob, ChecksumAlgorithm, NodeState
from tests.cluster.layouts import read_blobs
from tests.cluster.world import QUICK, SETTINGS, World, open_world

Hook = Callable[[Relayout], Awaitable[object]]


class Observed:
    """The world's metadata; what becomes of a Relayout may be changed."""

    def __init__(self, inner: Metadata) -> None:
        self._inner = inner
        self.on_relayout: Hook | None = None

    async def apply(self, command: Command) -> object:
        if isinstance(command, Relayout) and self.on_relayout is not None:
            return await self.on_relayout(command)
        return await self._inner.apply(command)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class Stage:
    """A world, and a rewriter beside its gateway."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.observed = Observed(world.metadata)
        self.claims = BlobClaims()
        self.throttle = Throttle(1 << 40, SystemClock())
        self.term = 0
        self.rewriter = self.make_rewriter(lambda: self.term, self.claims)

    def make_rewriter(self, term: Callable[[], int], claims: BlobClaims) -> Rewriter:
        """Another master's, perhaps."""
        return Rewriter(
            self.observed,  # type: ignore[arg-type]
            NodePool(bytes(32), SystemClock(), lambda node: self.world.nodes[node.number]),
            claims,
            self.throttle,
            parse_redundancy("replica:2"),
            lambda: self.world.map.cluster_map,
            term,
            SystemClock(),
            deadlines=QUICK,
            pause_s=0,
        )

    async def set(self, redundancy: str = "", rewrite: bytes | None = None) -> None:
        """The bucket's settings."""
        document = redundancy.encode() or None
        for name, value in ((REDUNDANCY_SETTING, document), (REWRITE_SETTING, rewrite)):
            await self.world.metadata.apply(PutBucketSetting(self.world.bucket.bucket_id, name, value))

    async def run(self, redundancy: str) -> None:
        """Set it, and lay everything out."""
        await self.set(redundancy)
        await self.rewriter.run()

    async def blob(self, key: bytes = b"key") -> Blob:
        """The only blob of an object, with all of its rows."""
        (blob,) = await read_blobs(self.world, key)
        return blob

    async def sweep(self) -> None:
        """What is released, as if no read had begun before."""
        world = self.world
        plan = plan_released(await world.metadata.list_released_blobs(2**62, 1_000), world.map.cluster_map)
        for number, chunk_ids in plan.deletes.items():
            await world.nodes[number].inner.delete_many(chunk_ids)
        if gone := choose_forgettable(plan, ()):
            blob_ids, generations = zip(*gone, strict=True)
            await world.metadata.apply(ForgetBlobs(blob_ids, generations))

    async def require_only(self, *keys: bytes) -> None:
        """Every node holds exactly what the rows of these objects name."""
        named: set[tuple[int, ChunkId]] = set()
        for key in keys:
            for blob in await read_blobs(self.world, key):
                width = parse_redundancy(blob.redundancy).width
                for chunk in blob.chunks:
                    assert len({number for number in chunk.nodes if number}) == width
                    stored = stored_chunk_id(blob.blob_id, chunk.index, blob.generation)
                    named |= {(number, stored) for number in chunk.nodes}
        held = {(number, it) for number, node in self.world.nodes.items() for it in node.chunks}
        assert held == named

    def generations(self) -> set[int]:
        """Of everything that nodes hold."""
        return {split_stored_index(it.chunk_index)[0] for node in self.world.nodes.values() for it in node.chunks}


@asynccontextmanager
async def staged(tmp_path: Path, node_count: int = 8, chunk_bytes: int = 1 << 20) -> AsyncIterator[Stage]:
    """Replicas of two by default."""
    settings = replace(SETTINGS, chunk_bytes=chunk_bytes)
    async with open_world(tmp_path, node_count=node_count, deadlines=QUICK, settings=settings) as world:
        for node in world.nodes.values():
            await world.metadata.apply(RegisterNode(node.node().report, NodeState.UP))
        yield Stage(world)


# ------------------------------------------------------------------ from one redundancy to another


@pytest.mark.parametrize("redundancy", ["ec:4+2", "ec:2+1", "ec:1+1", "replica:3", "replica:1"])
@pytest.mark.parametrize("size", [20_000, 400_000, (3 << 20) + 70_000])
async def test_there_and_back(tmp_path: Path, redundancy: str, size: int) -> None:
    """The object reads the same, its pieces are those of its redundancy, and the old ones are swept."""
    data = os.urandom(size)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)
        before = await stage.blob()
        for wanted in (redundancy, "replica:2", redundancy):
            await stage.run(wanted)
            assert await stage.world.get(b"key") == data
            await stage.sweep()
            await stage.require_only(b"key")
            assert await stage.world.get(b"key") == data
        blob = await stage.blob()
        policy = parse_redundancy(redundancy)
        assert blob.redundancy == str(choose_for_size(policy, size))
        assert [it.wrapped_key for it in blob.chunks] == [it.wrapped_key for it in before.chunks]
        assert await stage.world.metadata.list_released_blobs(2**62, 10) == []


async def test_only_what_is_otherwise_is_laid_out(tmp_path: Path) -> None:
    """Counted; a second run finds nothing to do, and does not even look."""
    async with staged(tmp_path) as stage:
        for number in range(5):
            await stage.world.put(b"large-%d" % number, os.urandom(600_000))
        await stage.world.put(b"small", b"in the metadata")
        await stage.world.put(b"below a stripe", os.urandom(100_000))
        await stage.run("ec:4+1")
        assert stage.rewriter.counts == {"looked_at": 6, "rewritten": 5, "bytes": 5 * sealed_length(600_000)}
        assert (await stage.blob(b"below a stripe")).redundancy == "replica:2"
        await stage.rewriter.run()
        assert stage.rewriter.counts["rewritten"] == 5
        stage.rewriter.order()
        await stage.rewriter.run()
        assert stage.rewriter.counts == {"looked_at": 6}
        assert stage.generations() == {0, 64}


async def test_blobs_that_copies_and_parts_share(tmp_path: Path) -> None:
    """Once, and for everybody."""
    data = os.urandom(700_000)
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", data)
        source = CopySource(world.bucket, (await world.objects.head(world.bucket, b"key")).version)
        await world.objects.copy(source, world.bucket, b"copy", world.request(), ChecksumAlgorithm.CRC64NVME)
        await stage.run("ec:2+2")
        assert stage.rewriter.counts["rewritten"] == 1
        await world.objects.delete(world.bucket, [DeleteTarget(b"key")])
        assert await world.get(b"copy") == data
        await stage.sweep()
        await stage.require_only(b"copy")


async def test_a_blob_of_more_chunks_than_a_page(tmp_path: Path) -> None:
    """Every one of them."""
    data = os.urandom(70 * 65_536 + 5)
    async with staged(tmp_path, chunk_bytes=65_536) as stage:
        await stage.world.put(b"key", data)
        await stage.run("ec:2+1")
        await stage.sweep()
        await stage.require_only(b"key")
        assert len((await stage.blob()).chunks) == 71
        assert await stage.world.get(b"key") == data


async def test_a_read_that_began_before_ends_well(tmp_path: Path) -> None:
    """Its rows name the old pieces, which are there until no read can want them."""
    data = os.urandom(6 << 20)
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", data)
        async with world.objects.open(world.bucket, b"key") as reading:
            blocks = aiter(reading)
            got = [bytes(await anext(blocks))]
            await stage.run("ec:4+2")
            got += [bytes(block) async for block in blocks]
        assert b"".join(got) == data


async def test_another_bucket_stays_as_it_is(tmp_path: Path) -> None:
    """The cluster's default is not the bucket's."""
    async with staged(tmp_path) as stage:
        other = await stage.world.make_bucket("other")
        await stage.world.put(b"key", os.urandom(600_000), bucket=other)
        await stage.world.put(b"key", os.urandom(600_000))
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["rewritten"] == 1
        (blob,) = (await stage.world.metadata.read_version(other.bucket_id, b"key")).blobs
        assert (blob.redundancy, blob.generation) == ("replica:2", 0)


# ------------------------------------------------------------------ stopping and resuming


async def test_a_bucket_is_stopped_and_resumed(tmp_path: Path) -> None:
    """With the blobs under way; what is done stays done."""
    async with staged(tmp_path) as stage:
        data = {b"key-%02d" % number: os.urandom(600_000) for number in range(20)}
        for key, body in data.items():
            await stage.world.put(key, body)

        async def stop(command: Relayout) -> object:
            await stage.set("ec:4+2", b"stopped")
            return await stage.world.metadata.apply(command)

        stage.observed.on_relayout = stop
        await stage.run("ec:4+2")
        assert 1 <= stage.rewriter.counts["rewritten"] <= 4
        stage.observed.on_relayout = None
        await stage.rewriter.run()
        assert stage.rewriter.counts["rewritten"] <= 4, "stopped"
        await stage.set("ec:4+2")
        await stage.rewriter.run()
        await stage.sweep()
        await stage.require_only(*data)
        for key, body in data.items():
            assert (await stage.blob(key)).redundancy == "ec:4+2"
            assert await stage.world.get(key) == body


async def test_a_run_that_ends_anywhere_is_resumed(tmp_path: Path) -> None:
    """Its pieces stay for the survey, under a generation that no row names; the next attempt has another."""
    async with staged(tmp_path, chunk_bytes=1 << 18) as stage:
        data = {b"key-%d" % number: os.urandom(900_000) for number in range(6)}
        for key, body in data.items():
            await stage.world.put(key, body)
        await stage.set("ec:2+1")
        for _ in range(30):
            running = asyncio.create_task(stage.rewriter.run())
            for _ in range(40):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for key, body in data.items():
                assert await stage.world.get(key) == body
        stage.rewriter.order()
        await stage.rewriter.run()
        assert stage.rewriter.counts["failed"] == 0
        blobs = {(blob.blob_id, blob.generation) for key in data for blob in await read_blobs(stage.world, key)}
        assert {(await stage.blob(key)).redundancy for key in data} == {"ec:2+1"}
        await stage.sweep()
        left = {
            (it.blob_id, split_stored_index(it.chunk_index)[0])
            for node in stage.world.nodes.values()
            for it in node.chunks
        }
        assert all(generation for _, generation in left - blobs), "of attempts only, never of generation 0"
        for key, body in data.items():
            assert await stage.world.get(key) == body


# ------------------------------------------------------------------ sources and targets that fail


async def test_a_bad_source_is_not_copied(tmp_path: Path) -> None:
    """Another replica is read, and what was begun is begun again."""
    data = os.urandom(3 << 20)
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", data)
        blob = await stage.blob()
        for number in {chunk.nodes[0] for chunk in blob.chunks}:
            for chunk_id, sealed in list(world.nodes[number].chunks.items()):
                if number == blob.chunks[chunk_id.chunk_index].nodes[0]:
                    world.nodes[number].chunks[chunk_id] = sealed[:-1] + bytes([sealed[-1] ^ 1])
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["failed"] == 0
        assert await world.get(b"key") == data


async def test_a_blob_that_cannot_be_read_stays_as_it_is(tmp_path: Path) -> None:
    """And nothing of the attempt stays; the others are laid out."""
    async with staged(tmp_path) as stage:
        world = stage.world
        await world.put(b"key", os.urandom(600_000))
        blob = await stage.blob()
        await world.put(b"other", os.urandom(600_000))
        for number in blob.chunks[0].nodes:
            (chunk_id,) = [it for it in world.nodes[number].chunks if it.blob_id == blob.blob_id]
            sealed = world.nodes[number].chunks[chunk_id]
            world.nodes[number].chunks[chunk_id] = bytes([sealed[0] ^ 1]) + sealed[1:]
        await stage.run("ec:4+2")
        assert (stage.rewriter.counts["rewritten"], stage.rewriter.counts["failed"]) == (1, 1)
        await stage.sweep()
        await stage.require_only(b"key", b"other")
        assert (await stage.blob()).generation == 0


@pytest.mark.parametrize("lost", [2, 3])
async def test_from_as_many_fragments_as_are_needed(tmp_path: Path, lost: int) -> None:
    """What is lost is rebuilt; one more, and the blob stays."""
    data = os.urandom((2 << 20) + 100_000)
    async with staged(tmp_path) as stage:
        world = stage.world
        await stage.set("ec:4+2")
        await world.cluster.directory.refresh()
        await world.put(b"key", data, bucket=await world.cluster.directory.bucket("bucket"))
        for chunk in (await stage.blob()).chunks:
            for number in chunk.nodes[:lost]:
                await world.nodes[number].inner.delete_many(
                    [it for it in world.nodes[number].chunks if it.chunk_index == chunk.index]
                )
        await stage.run("replica:2")
        assert stage.rewriter.counts["failed"] == (lost > 2)
        if lost == 2:
            assert await world.get(b"key") == data
            await stage.sweep()
            await stage.require_only(b"key")
        else:
            assert stage.generations() == {0}


@pytest.mark.parametrize(
    "how", ["full", "down", "put_dies_after_bytes", "put_stalls_after_bytes", "put_stores_other_bytes"]
)
async def test_a_target_that_fails_is_replaced(tmp_path: Path, how: str) -> None:
    """Every piece is where the rows say, and nothing anywhere else."""
    data = os.urandom(3 << 20)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)
        holders = {number for chunk in (await stage.blob()).chunks for number in chunk.nodes}
        free = next(node for number, node in stage.world.nodes.items() if number not in holders)
        setattr(free, how, 100_000 if how.endswith("bytes") and how != "put_stores_other_bytes" else True)
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["failed"] == 0
        await stage.sweep()
        await stage.require_only(b"key")
        assert await stage.world.get(b"key") == data


async def test_too_few_nodes_change_nothing(tmp_path: Path) -> None:
    """It is tried again later."""
    async with staged(tmp_path, node_count=5) as stage:
        for number in range(8):
            await stage.world.put(b"key-%d" % number, os.urandom(600_000))
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["rewritten"] == 0
        assert 1 <= stage.rewriter.counts["failed"] <= 4, "nothing is learnt by trying all of them"
        assert stage.generations() == {0}


# ------------------------------------------------------------------ what others do meanwhile


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


async def test_the_pace_is_kept(tmp_path: Path) -> None:
    """Every byte that is read was asked of the throttle."""
    async with staged(tmp_path) as stage:
        for number in range(3):
            await stage.world.put(b"key-%d" % number, os.urandom(900_000))
        await stage.run("ec:4+2")
        assert stage.throttle.taken_bytes == stage.rewriter.counts["bytes"] == 3 * sealed_length(900_000)


async def test_memory_is_bounded(tmp_path: Path) -> None:
    """However large the chunks, and however slow the nodes."""
    data = os.urandom(24 << 20)
    async with staged(tmp_path, chunk_bytes=8 << 20) as stage:
        await stage.world.put(b"key", data)
        for node in stage.world.nodes.values():
            node.slow_by_steps = 3
        await stage.run("ec:4+2")
        budget = stage.rewriter._blobs._writes._budget
        assert budget.held_bytes == 0
        assert budget.held_bytes_peak <= 4 << 20
        assert await stage.world.get(b"key") == data
