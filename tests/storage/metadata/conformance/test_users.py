"""Users and access keys, and the configuration sequence that every change of them raises."""

from __future__ import annotations

import pytest

from storage.base.errors import BucketNotEmpty, LimitExceeded, NoSuchUser, UserAlreadyExists
from storage.metadata.commands import (
    CreateAccessKey,
    CreateBucket,
    CreateUser,
    DeleteAccessKey,
    DeleteBucket,
    DeleteUser,
    PutRootUser,
)
from storage.metadata.interface import Metadata
from storage.model import AccessKey, User
from tests.storage.metadata.engines import Engine


def user(name: str, canonical_id: str | None = None) -> User:
    """A user whose canonical id follows from the name unless given."""
    return User(canonical_id or f"id-{name}", name, name.title(), f"{name}@example.com", False, 7)


def key(access_key_id: str, owner: User) -> AccessKey:
    """An access key of the user."""
    return AccessKey(access_key_id, owner.canonical_id, b"sealed-" + access_key_id.encode(), True, 7)


async def test_a_user_is_found_by_id_and_by_access_key(metadata: Metadata) -> None:
    """The record comes back as it was put."""
    alice = user("alice")
    await metadata.apply(CreateUser(alice, key("AK1", alice)))
    assert await metadata.find_user("id-alice") == alice
    assert await metadata.find_access_key("AK1") == (key("AK1", alice), alice)
    assert await metadata.find_user("nobody") is None
    assert await metadata.find_access_key("AK2") is None


async def test_a_user_is_found_by_name_and_by_email(metadata: Metadata) -> None:
    """An address that two users share, or that is none, finds nobody."""
    alice, bob = user("alice"), user("bob")
    nameless = User("id-c", "carol", "Carol", "", False, 7)
    for one in (alice, bob, nameless):
        await metadata.apply(CreateUser(one))
    assert await metadata.find_user_by_name("bob") == bob
    assert await metadata.find_user_by_email("alice@example.com") == alice
    await metadata.apply(CreateUser(User("id-d", "dave", "Dave", "bob@example.com", False, 7)))
    for unknown in ("bob@example.com", "", "ALICE@EXAMPLE.COM", "\x00"):
        assert await metadata.find_user_by_email(unknown) is None
    for unknown in ("", "nobody", "\x00"):
        assert await metadata.find_user_by_name(unknown) is None


async def test_a_creation_time_of_zero_is_filled_in(engine: Engine, metadata: Metadata) -> None:
    """The owner's clock says when."""
    await metadata.apply(CreateUser(User("i", "n", "N")))
    found = await metadata.find_user("i")
    assert found is not None
    assert found.created_ms == engine.clock.now_ms()


@pytest.mark.parametrize(
    ("name", "canonical_id", "access_key_id"), [("alice", "x", "K"), ("x", "id-alice", "K"), ("x", "y", "AK1")]
)
async def test_taken_names_are_refused_whole(
    metadata: Metadata, name: str, canonical_id: str, access_key_id: str
) -> None:
    """A taken access key id undoes the user that came with it."""
    alice = user("alice")
    await metadata.apply(CreateUser(alice, key("AK1", alice)))
    before = await metadata.configuration_sequence()
    other = user(name, canonical_id)
    with pytest.raises(UserAlreadyExists):
        await metadata.apply(CreateUser(other, key(access_key_id, other)))
    assert await metadata.list_users() == [(alice, [key("AK1", alice)])]
    assert await metadata.configuration_sequence() == before


async def test_users_are_listed_by_name_with_their_keys(metadata: Metadata) -> None:
    """Keys by id; a user without a key has an empty list."""
    bob, alice = user("bob"), user("alice")
    await metadata.apply(CreateUser(bob))
    await metadata.apply(CreateUser(alice, key("AK2", alice)))
    await metadata.apply(CreateAccessKey(key("AK1", alice)))
    assert await metadata.list_users() == [(alice, [key("AK1", alice), key("AK2", alice)]), (bob, [])]


async def test_deleting_a_user_takes_its_keys_and_needs_its_buckets_gone(metadata: Metadata) -> None:
    """BucketNotEmpty while it owns one; NoSuchUser the second time."""
    alice = user("alice")
    await metadata.apply(CreateUser(alice, key("AK1", alice)))
    bucket = await metadata.apply(CreateBucket("b", "id-alice", "r", "bk"))
    with pytest.raises(BucketNotEmpty):
        await metadata.apply(DeleteUser("alice"))
    await metadata.apply(DeleteBucket(bucket.bucket_id))
    await metadata.apply(DeleteUser("alice"))
    assert await metadata.find_access_key("AK1") is None
    with pytest.raises(NoSuchUser):
        await metadata.apply(DeleteUser("alice"))


async def test_access_keys_come_and_go(metadata: Metadata) -> None:
    """Unknown users are refused, unknown keys are deleted all the same and change no sequence."""
    alice = user("alice")
    with pytest.raises(NoSuchUser):
        await metadata.apply(CreateAccessKey(key("AK1", alice)))
    await metadata.apply(CreateUser(alice))
    await metadata.apply(CreateAccessKey(key("AK1", alice)))
    with pytest.raises(UserAlreadyExists):
        await metadata.apply(CreateAccessKey(key("AK1", alice)))
    await metadata.apply(DeleteAccessKey("AK1"))
    before = await metadata.configuration_sequence()
    await metadata.apply(DeleteAccessKey("AK1"))
    assert await metadata.configuration_sequence() == before
    assert await metadata.list_users() == [(alice, [])]


async def test_the_root_user_is_what_the_credentials_say(metadata: Metadata) -> None:
    """Put twice it is a no-op; new credentials replace the old key; it cannot be deleted."""
    root = User("root-id", "root", "root", "", True, 7)
    await metadata.apply(PutRootUser(root, key("RK1", root)))
    before = await metadata.configuration_sequence()
    await metadata.apply(PutRootUser(root, key("RK1", root)))
    assert await metadata.configuration_sequence() == before
    await metadata.apply(PutRootUser(root, key("RK2", root)))
    assert await metadata.list_users() == [(root, [key("RK2", root)])]
    assert await metadata.configuration_sequence() > before
    with pytest.raises(LimitExceeded):
        await metadata.apply(DeleteUser("root"))


async def test_root_does_not_take_what_belongs_to_another_user(metadata: Metadata) -> None:
    """A user's name or access key stays the user's, and the old root stays too."""
    root, alice = User("root-id", "root", "root", "", True, 7), user("alice")
    await metadata.apply(PutRootUser(root, key("RK1", root)))
    await metadata.apply(CreateUser(alice, key("AK1", alice)))
    with pytest.raises(UserAlreadyExists):
        await metadata.apply(PutRootUser(root, key("AK1", root)))
    with pytest.raises(UserAlreadyExists):
        await metadata.apply(PutRootUser(User("root-id", "alice", "root", "", True, 7), key("RK1", root)))
    assert await metadata.find_access_key("RK1") == (key("RK1", root), root)
