"""The directory over real metadata: what it remembers is never older than the configuration sequence says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import directory as module
from cluster.directory import Directory
from storage.base.clock import SystemClock
from storage.base.errors import BucketAlreadyExists, BucketNotEmpty, NoSuchBucket, NoSuchUser, UserAlreadyExists
from storage.metadata.commands import DeleteAccessKey
from storage.model import User, Versioning
from tests.cluster.world import World, open_world

USER = User("a" * 64, "ann", "Ann")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """With one bucket."""
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
def directory(world: World) -> Directory:
    """The worker's."""
    return world.cluster.directory


def other_worker(world: World) -> Directory:
    """A directory that shares nothing but the metadata and the keyring."""
    return Directory(world.metadata, world.keyring, SystemClock())


async def test_a_user_and_its_secret_come_back(directory: Directory) -> None:
    """The secret is opened for use and hidden in repr."""
    await directory.create_user(USER, "AKIDANN", "s3cret/+value")
    await directory.refresh()
    credential = await directory.credential("AKIDANN")
    assert credential is not None
    assert credential.secret_access_key == "s3cret/+value"
    assert credential.user.name == "ann"
    assert "s3cret" not in repr(credential)
    assert await directory.user(USER.canonical_id) == credential.user
    with pytest.raises(UserAlreadyExists):
        await directory.create_user(USER, "AKIDTWO", "x")


async def test_secrets_are_sealed_in_the_metadata(world: World, directory: Directory) -> None:
    """The row shows nothing of the secret."""
    await directory.create_user(USER, "AKIDANN", "s3cret/+value")
    found = await world.metadata.find_access_key("AKIDANN")
    assert found is not None
    assert b"s3cret" not in found[0].sealed_secret


async def test_a_change_by_another_worker_is_seen_after_refresh(world: World, directory: Directory) -> None:
    """Cached until the sequence moves, then asked anew: keys, users, buckets, and what was not there."""
    other = other_worker(world)
    await directory.refresh()
    assert await directory.credential("AKIDANN") is None
    await other.create_user(USER, "AKIDANN", "secret")
    assert await directory.credential("AKIDANN") is None
    await directory.refresh()
    assert await directory.credential("AKIDANN") is not None
    await world.metadata.apply(DeleteAccessKey("AKIDANN"))
    await directory.refresh()
    assert await directory.credential("AKIDANN") is None
    await other.delete_user("ann")
    await directory.refresh()
    assert await directory.user(USER.canonical_id) is None


async def test_lookups_are_remembered(world: World, directory: Directory) -> None:
    """The metadata is asked once for a bucket, found or not."""
    asked: list[str] = []
    find = world.metadata.find_bucket

    async def counting(name: str) -> Any:
        asked.append(name)
        return await find(name)

    world.metadata.find_bucket = counting  # type: ignore[method-assign]
    await directory.refresh()
    for _ in range(3):
        assert (await directory.bucket("bucket")).name == "bucket"
        with pytest.raises(NoSuchBucket):
            await directory.bucket("nothing")
        await directory.refresh()
    assert asked == ["bucket", "nothing"]


async def test_what_was_read_before_a_refresh_is_not_remembered_after_it(world: World, directory: Directory) -> None:
    """A slow look-up that another request's refresh overtakes must not bring the old state back."""
    find = world.metadata.find_bucket
    await directory.refresh()

    async def slow(name: str) -> Any:
        found = await find(name)
        await other_worker(world).put_setting(world.bucket, "cors", b"<new/>")
        await directory.refresh()
        return found

    world.metadata.find_bucket = slow  # type: ignore[method-assign]
    assert (await directory.bucket("bucket")).settings == {}
    world.metadata.find_bucket = find  # type: ignore[method-assign]
    assert (await directory.bucket("bucket")).settings == {"cors": b"<new/>"}


async def test_memory_is_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guessing names fills nothing up."""
    monkeypatch.setattr(module, "REMEMBERED_MAX", 10)
    await directory.refresh()
    for index in range(95):
        assert await directory.user(f"{index:064x}") is None
    assert len(directory._users) <= 10


async def test_buckets(world: World, directory: Directory) -> None:
    """Create, list, set, delete."""
    for name in ("alpha", "beta-1", "beta-2", "gamma"):
        await directory.create_bucket(name, world.owner, "us-east-1", {})
    owner_id = world.owner.canonical_id
    assert [it.name for it in await directory.buckets(owner_id)] == ["alpha", "beta-1", "beta-2", "bucket", "gamma"]
    assert [it.name for it in await directory.buckets(owner_id, "beta")] == ["beta-1", "beta-2"]
    assert [it.name for it in await directory.buckets(owner_id, "beta", limit=1)] == ["beta-1"]
    assert [it.name for it in await directory.buckets(owner_id, after="beta-1", limit=2)] == ["beta-2", "bucket"]
    await directory.refresh()
    alpha = await directory.bucket("alpha")
    await directory.set_versioning(alpha, Versioning.ENABLED)
    await directory.put_setting(alpha, "cors", b"<cors/>")
    await directory.refresh()
    changed = await directory.bucket("alpha")
    assert (changed.versioning, changed.settings) == (Versioning.ENABLED, {"cors": b"<cors/>"})
    await world.put(b"key", b"x", bucket=changed)
    with pytest.raises(BucketNotEmpty):
        await directory.delete_bucket(changed)
    await directory.delete_bucket(await directory.bucket("gamma"))
    await directory.refresh()
    with pytest.raises(NoSuchBucket):
        await directory.bucket("gamma")
    with pytest.raises(NoSuchUser):
        await directory.delete_user("nobody")


async def test_a_bucket_has_a_key_of_its_own_that_is_durable_first(world: World, directory: Directory) -> None:
    """Two buckets, two keys, both in the keyring; a refused bucket leaves none behind."""
    other = await directory.create_bucket("other", world.owner, "us-east-1", {})
    assert other.bucket_key_id != world.bucket.bucket_key_id
    keys = {stored.key_id for stored in world.keyring.list_key_files()}
    assert keys == {other.bucket_key_id, world.bucket.bucket_key_id}
    with pytest.raises(BucketAlreadyExists) as caught:
        await directory.create_bucket("other", world.owner, "us-east-1", {})
    assert caught.value.details["owner_id"] == world.owner.canonical_id

    async def find_nothing(_: str) -> None:
        return None

    world.metadata.find_bucket = find_nothing  # type: ignore[method-assign]
    with pytest.raises(BucketAlreadyExists):
        await directory.create_bucket("other", world.owner, "us-east-1", {})
    assert {stored.key_id for stored in world.keyring.list_key_files()} == keys
