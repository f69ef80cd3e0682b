"""Commits, copies and deletes in the three states of versioning."""

from __future__ import annotations

import asyncio

import pytest

from storage.base.errors import LimitExceeded, NoSuchBucket, NoSuchKey, NoSuchVersion, SessionFenced, SourceChanged
from storage.metadata.commands import CommitVersion, Deleted, DeleteTarget, DeleteVersions, VersionCommitted
from storage.model import ByteRange, Extent, Versioning
from tests.storage.metadata.builders import Worker
from tests.storage.metadata.engines import Engine


async def test_an_unversioned_put_replaces(worker: Worker) -> None:
    """No version id is answered, the old blob is gone (it was inline), the read finds the new one."""
    old = worker.inline(5)
    assert (await worker.put(b"k", "one", blob=old)).version_id is None
    await worker.put(b"k", "two")
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert (read.version.etag, read.version.version_id, read.is_current) == ("two", "null", True)
    assert await worker.metadata.find_referenced_blobs([old.blob_id]) == set()


async def test_a_replaced_chunked_blob_is_released_and_still_readable(engine: Engine, worker: Worker) -> None:
    """Its chunk rows serve readers that began before, until it is forgotten."""
    blob = worker.chunked(20 << 20)
    await worker.put(b"k", blob=blob)
    engine.clock.advance(5)
    await worker.put(b"k")
    now_ms = engine.clock.now_ms()
    assert await worker.metadata.list_released_blobs(now_ms, 10) == []
    assert await worker.metadata.list_released_blobs(now_ms + 1, 10) == [blob]
    assert tuple(await worker.metadata.read_chunks(blob.blob_id, 0)) == blob.chunks


async def test_last_modified_never_goes_backwards_for_a_key(engine: Engine, worker: Worker) -> None:
    """A clock that is set back does not show."""
    first = await worker.put(b"k")
    engine.clock.advance(-100)
    second = await worker.put(b"k")
    other = await worker.put(b"other")
    assert second.last_modified_ms == first.last_modified_ms
    assert other.last_modified_ms <= second.last_modified_ms


async def test_versions_stack_in_the_order_of_their_commits(engine: Engine, versioned: Worker) -> None:
    """Each is found by its id; version ids sort like the commits, whatever the clock does."""
    ids = []
    for number in range(5):
        engine.clock.advance(-1)
        committed = await versioned.put(b"k", f"e{number}")
        assert committed.version_id is not None
        ids.append(committed.version_id)
    assert ids == sorted(ids)
    assert [await versioned.etag(b"k", version_id) for version_id in ids] == [f"e{number}" for number in range(5)]
    reads = [await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k", version_id) for version_id in ids]
    assert [read.is_current for read in reads] == [False] * 4 + [True]


async def test_deleting_the_newest_version_promotes_the_next(versioned: Worker) -> None:
    """And deleting one in the middle changes nothing about the current one."""
    ids = [(await versioned.put(b"k", f"e{number}")).version_id for number in range(4)]
    assert await versioned.delete(b"k", ids[1]) == Deleted(ids[1])
    assert await versioned.etag(b"k") == "e3"
    await versioned.delete(b"k", ids[3])
    assert await versioned.etag(b"k") == "e2"
    page = await versioned.metadata.list_heads(versioned.bucket.bucket_id)
    assert [entry.etag for entry in page.entries] == ["e2"]
    await versioned.delete(b"k", ids[2])
    await versioned.delete(b"k", ids[0])
    with pytest.raises(NoSuchKey):
        await versioned.etag(b"k")


async def test_a_sequence_is_not_used_again_while_the_key_lives(versioned: Worker) -> None:
    """After the newest version is deleted, the next one still sorts behind it."""
    await versioned.put(b"k")
    newest = (await versioned.put(b"k")).version_id
    await versioned.delete(b"k", newest)
    again = (await versioned.put(b"k")).version_id
    assert newest is not None
    assert again is not None
    assert again > newest


async def test_a_delete_marker_hides_the_key_and_names_itself(versioned: Worker) -> None:
    """NoSuchKey tells the marker's id; the versions beneath are readable; the marker is by its id."""
    kept = await versioned.put(b"k", "kept")
    deleted = await versioned.delete(b"k")
    assert deleted.is_marker
    assert deleted.version_id not in (None, "null")
    with pytest.raises(NoSuchKey) as refused:
        await versioned.etag(b"k")
    assert refused.value.details["delete_marker_version_id"] == deleted.version_id
    assert int(refused.value.details["last_modified_ms"]) >= kept.last_modified_ms
    assert await versioned.etag(b"k", kept.version_id) == "kept"
    marker = await versioned.metadata.read_version(versioned.bucket.bucket_id, b"k", deleted.version_id)
    assert (marker.version.is_marker, marker.extents, marker.is_current) == (True, (), True)
    assert (await versioned.metadata.list_heads(versioned.bucket.bucket_id)).entries == ()


async def test_deleting_a_marker_brings_the_version_beneath_back(versioned: Worker) -> None:
    """The answer says that a marker was removed."""
    await versioned.put(b"k", "kept")
    marker = await versioned.delete(b"k")
    assert await versioned.delete(b"k", marker.version_id) == Deleted(marker.version_id, is_marker=True)
    assert await versioned.etag(b"k") == "kept"


async def test_a_marker_is_made_even_for_a_key_that_never_was(versioned: Worker) -> None:
    """AWS does so in a versioned bucket; markers of different keys and of one key differ in their ids."""
    ids = {(await versioned.delete(object_key)).version_id for object_key in (b"a", b"b", b"a")}
    assert len(ids) == 3


async def test_an_unversioned_delete_removes_and_repeats(worker: Worker) -> None:
    """A missing key is deleted all the same."""
    await worker.put(b"k")
    assert await worker.delete(b"k") == Deleted()
    assert await worker.delete(b"k") == Deleted()
    with pytest.raises(NoSuchKey):
        await worker.etag(b"k")


async def test_the_null_version_of_an_unversioned_key_has_a_name(worker: Worker) -> None:
    """It can be read and deleted as `null`."""
    await worker.put(b"k", "one")
    assert await worker.etag(b"k", "null") == "one"
    assert await worker.delete(b"k", "null") == Deleted("null")
    with pytest.raises(NoSuchVersion):
        await worker.etag(b"k", "null")


async def test_suspended_writes_replace_only_the_null_version(versioned: Worker) -> None:
    """Versions from before stay; the null version is one."""
    first = await versioned.put(b"k", "first")
    await versioned.set_versioning(Versioning.SUSPENDED)
    assert (await versioned.put(b"k", "null-1")).version_id == "null"
    await versioned.put(b"k", "null-2")
    assert await versioned.etag(b"k") == "null-2"
    assert await versioned.etag(b"k", first.version_id) == "first"
    await versioned.delete(b"k", "null")
    assert await versioned.etag(b"k") == "first"
    with pytest.raises(NoSuchVersion):
        await versioned.etag(b"k", "null")


async def test_a_suspended_delete_replaces_the_null_version_with_a_null_marker(versioned: Worker) -> None:
    """Deleting that marker by its name brings the newest version beneath back."""
    await versioned.put(b"k", "first")
    await versioned.set_versioning(Versioning.SUSPENDED)
    await versioned.put(b"k", "null-1")
    assert await versioned.delete(b"k") == Deleted("null", is_marker=True)
    with pytest.raises(NoSuchKey) as refused:
        await versioned.etag(b"k")
    assert refused.value.details["delete_marker_version_id"] == "null"
    assert await versioned.delete(b"k", "null") == Deleted("null", is_marker=True)
    assert await versioned.etag(b"k") == "first"


async def test_a_null_version_deep_in_the_stack_is_found_and_replaced(worker: Worker) -> None:
    """It stays addressable below newer versions, and a later suspended write replaces it there."""
    await worker.put(b"k", "null-1")
    await worker.set_versioning(Versioning.ENABLED)
    second = await worker.put(b"k", "second")
    assert await worker.etag(b"k", "null") == "null-1"
    await worker.set_versioning(Versioning.SUSPENDED)
    await worker.put(b"k", "null-2")
    assert await worker.etag(b"k", "null") == "null-2"
    await worker.delete(b"k", "null")
    assert await worker.etag(b"k") == "second"
    await worker.delete(b"k", second.version_id)
    with pytest.raises(NoSuchKey):
        await worker.etag(b"k")


async def test_a_null_version_beneath_is_promoted_by_its_sequence(worker: Worker) -> None:
    """The next newest may be the null version or not."""
    await worker.put(b"k", "null-1")
    await worker.set_versioning(Versioning.ENABLED)
    second = await worker.put(b"k", "second")
    third = await worker.put(b"k", "third")
    await worker.delete(b"k", third.version_id)
    assert await worker.etag(b"k") == "second"
    await worker.delete(b"k", second.version_id)
    assert await worker.etag(b"k") == "null-1"


@pytest.mark.parametrize("version_id", ["0" * 32, "f" * 32, "nonsense", "", "0" * 31 + "A"])
async def test_versions_that_never_were_are_not_found_and_deleted_all_the_same(
    versioned: Worker, version_id: str
) -> None:
    """AWS answers 204; a sequence beyond 63 bits is only another unknown id."""
    await versioned.put(b"k", "one")
    with pytest.raises(NoSuchVersion):
        await versioned.etag(b"k", version_id)
    assert await versioned.delete(b"k", version_id) == Deleted(version_id)
    assert await versioned.delete(b"none", version_id) == Deleted(version_id)
    assert await versioned.etag(b"k") == "one"


async def test_a_thousand_targets_have_a_thousand_outcomes(versioned: Worker) -> None:
    """Several transactions apply them; the outcomes are in the order of the targets."""
    put = await asyncio.gather(*[versioned.put(b"%04d" % number) for number in range(0, 1000, 10)])
    ids = [committed.version_id for committed in put]
    targets = tuple(DeleteTarget(b"%04d" % number) for number in range(1000))
    outcomes = await versioned.apply(DeleteVersions(versioned.bucket.bucket_id, targets))
    assert len({outcome.version_id for outcome in outcomes}) == 1000
    assert all(outcome.is_marker for outcome in outcomes)
    removals = tuple(DeleteTarget(b"%04d" % (10 * at), version_id) for at, version_id in enumerate(ids))
    outcomes = await versioned.apply(DeleteVersions(versioned.bucket.bucket_id, removals))
    assert outcomes == [Deleted(version_id) for version_id in ids]


async def test_a_copy_shares_blobs_until_the_last_reference_goes(worker: Worker) -> None:
    """Only then are they released."""
    blob = worker.chunked(100)
    await worker.put(b"a", blob=blob)
    source = (await worker.metadata.read_version(worker.bucket.bucket_id, b"a")).extents
    await worker.share(source, b"b")
    await worker.delete(b"a")
    assert await worker.released() == set()
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"b")
    assert read.blobs == (blob,)
    await worker.delete(b"b")
    assert await worker.released() == {blob.blob_id}


async def test_a_copy_keeps_an_inline_body_that_its_source_lost(worker: Worker) -> None:
    """Shared twice, and read as a whole, in part and by its chunks, from each; the last one takes it along."""
    blob = worker.inline(100)
    await worker.put(b"a", blob=blob)
    source = (await worker.metadata.read_version(worker.bucket.bucket_id, b"a")).extents
    await worker.share(source, b"b")
    await worker.share(source, b"c")
    for names in ((b"a", b"b", b"c"), (b"b", b"c"), (b"c",)):
        for name in names:
            read = await worker.metadata.read_version(worker.bucket.bucket_id, name)
            part = await worker.metadata.read_version(worker.bucket.bucket_id, name, byte_range=ByteRange(3, 5))
            assert (read.extents, read.blobs, part.blobs) == (source, (blob,), (blob,))
        assert await worker.metadata.read_chunks(blob.blob_id, 0) == list(blob.chunks)
        with pytest.raises(SessionFenced):
            await worker.put(b"again", blob=blob)
        await worker.delete(names[0])
    assert await worker.metadata.read_chunks(blob.blob_id, 0) == []
    assert await worker.released() == set()


async def test_a_copy_onto_itself_keeps_its_bytes(worker: Worker) -> None:
    """The new version is in place before the old one's references go, for inline bodies as well."""
    for blob in (worker.chunked(100), worker.inline(100)):
        await worker.put(b"k", "one", blob=blob)
        source = (await worker.metadata.read_version(worker.bucket.bucket_id, b"k")).extents
        await worker.share(source, b"k", "two")
        read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
        assert (read.version.etag, read.blobs) == ("two", (blob,))


async def test_a_copy_of_what_is_gone_is_refused(worker: Worker) -> None:
    """SourceChanged for a released blob, a forgotten one, a part's, and another length."""
    chunked, inline = worker.chunked(100), worker.inline(100)
    await worker.put(b"a", blob=chunked)
    await worker.put(b"b", blob=inline)
    await worker.delete(b"a")
    await worker.delete(b"b")
    part = await worker.put_part(await worker.create_upload(b"m"), 1)
    live = worker.inline(100)
    await worker.put(b"live", blob=live)
    for extent in (
        Extent(chunked.blob_id, 0, 100),
        Extent(inline.blob_id, 0, 100),
        Extent(part.blob_id, 0, part.size),
        Extent(live.blob_id, 0, 99),
    ):
        with pytest.raises(SourceChanged):
            await worker.share([extent], b"c")
    with pytest.raises(NoSuchKey):
        await worker.etag(b"c")


async def test_a_version_whose_pieces_do_not_add_up_is_refused(worker: Worker) -> None:
    """Blobs and extents must cover the size, in order and without a gap."""
    blob = worker.inline(100)
    await worker.put(b"k", blob=blob)
    for size, blobs, shared in (
        (99, (worker.inline(100),), ()),
        (5, (), ()),
        (100, (), (Extent(blob.blob_id, 1, 100),)),
        (0, (), (Extent(blob.blob_id, 0, 100),)),
    ):
        command = CommitVersion(
            worker.session_id, worker.bucket.bucket_id, b"k", worker.version(size, "x"), blobs, shared
        )
        with pytest.raises(LimitExceeded):
            await worker.apply(command)
    assert await worker.etag(b"k") == "e"


async def test_an_empty_object_has_no_blob(worker: Worker) -> None:
    """It is there all the same, and listed with its size."""
    await worker.put(b"k", size=0)
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert (read.version.size, read.extents, read.blobs) == (0, (), ())
    page = await worker.metadata.list_heads(worker.bucket.bucket_id)
    assert [entry.size for entry in page.entries] == [0]


async def test_a_commit_into_a_missing_bucket_is_refused(worker: Worker) -> None:
    """NoSuchBucket, decided in the commit."""
    with pytest.raises(NoSuchBucket):
        await worker.apply(CommitVersion(worker.session_id, 404, b"k", worker.version(0, "x")))


async def test_commits_of_several_blobs_have_running_offsets(worker: Worker) -> None:
    """The answer repeats the ETag."""
    blobs = (worker.chunked(100), worker.inline(7), worker.chunked(30))
    committed = await worker.apply(
        CommitVersion(worker.session_id, worker.bucket.bucket_id, b"k", worker.version(137, "x"), blobs)
    )
    assert isinstance(committed, VersionCommitted)
    assert committed.etag == "x"
    read = await worker.metadata.read_version(worker.bucket.bucket_id, b"k")
    assert [(extent.offset, extent.length) for extent in read.extents] == [(0, 100), (100, 7), (107, 30)]
    assert read.blobs == blobs
