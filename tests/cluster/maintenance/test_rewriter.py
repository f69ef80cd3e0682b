"""Laying out blobs anew, over a whole gateway's objects: they stay whole whatever fails, and nothing else stays."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.maintenance.blob_rewrite import Superseded
from cluster.maintenance.rewrite import Attempts
from cluster.objectstore import CopySource
from cluster.redundancy import choose_for_size, parse_redundancy
from storage.base.ids import split_stored_index
from storage.crypto.envelope import sealed_length
from storage.metadata.commands import DeleteTarget, Relayout
from storage.metadata.interface import ChunkPlace
from storage.model import ChecksumAlgorithm
from tests.cluster.layouts import read_blobs
from tests.cluster.maintenance.rewrite_stage import staged

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


async def test_who_fails_late_takes_nothing_of_the_layout_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A master that was stopped while another one, whose term is of the same class, laid out the same blob."""
    data = os.urandom(3 << 20)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)
        blob = await stage.blob()
        rewrite = Attempts().plan(blob, parse_redundancy("ec:4+2"), 0)
        assert rewrite is not None
        rows = await stage.world.metadata.find_chunk_places([(blob.blob_id, index) for index in range(3)])
        await stage.run("ec:4+2")
        assert (await stage.blob()).generation == rewrite.generation
        rows[-1] = rows[-1]._replace(nodes=(98, 99))
        find = stage.world.metadata.find_chunk_places

        async def find_late(keys: list[tuple[bytes, int]]) -> list[ChunkPlace]:
            monkeypatch.setattr(stage.observed, "find_chunk_places", find)
            return rows

        monkeypatch.setattr(stage.observed, "find_chunk_places", find_late, raising=False)
        with pytest.raises(Superseded):
            await stage.rewriter._blobs.rewrite(rewrite)
        assert await stage.world.get(b"key") == data
        await stage.sweep()
        await stage.require_only(b"key")


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
    """Every piece is where the rows say, and nothing anywhere else; what a node kept that had said otherwise is left to
    the survey."""
    data = os.urandom(3 << 20)
    async with staged(tmp_path) as stage:
        await stage.world.put(b"key", data)
        holders = {number for chunk in (await stage.blob()).chunks for number in chunk.nodes}
        number, free = next(item for item in stage.world.nodes.items() if item[0] not in holders)
        setattr(free, how, 100_000 if how.endswith("bytes") and how != "put_stores_other_bytes" else True)
        await stage.run("ec:4+2")
        assert stage.rewriter.counts["failed"] == 0
        await stage.sweep()
        await stage.require_only(b"key", strays_on=number if how == "put_stores_other_bytes" else 0)
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


# ------------------------------------------------------------------ pace and memory


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
