"""Directory: the door that s3gw enters for users, buckets and settings.

Everything looked up is remembered and valid for one configuration sequence only, in every worker: the sequence is read
(cheaply) once a request, and when it moved everything remembered is dropped. What is not found is remembered as well,
within a bound, so that guessing names costs the metadata nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from storage.base.clock import Clock
from storage.base.errors import BucketAlreadyExists, LimitExceeded, NoSuchBucket, Unavailable, UnknownKeyId
from storage.crypto.keyring import Keyring
from storage.metadata.commands import (
    CreateBucket,
    CreateUser,
    DeleteBucket,
    DeleteUser,
    PutBucketSetting,
    SetVersioning,
)
from storage.metadata.interface import Metadata
from storage.model import AccessKey, Bucket, User, Versioning

REMEMBERED_MAX = 10_000
"""of each kind; when it is reached everything of the kind is dropped"""

_T = TypeVar("_T")


class Credential(NamedTuple):
    """An access key with its secret opened; `repr` hides it."""

    access_key_id: str
    secret_access_key: str
    user: User

    def __repr__(self) -> str:
        return f"Credential({self.access_key_id})"


class Directory:
    """Lookups are cached and valid for one configuration sequence; `refresh` is cheap and called once a request."""

    def __init__(self, metadata: Metadata, keyring: Keyring, clock: Clock) -> None:
        self.sequence = -1
        self._metadata = metadata
        self._at_once = metadata.at_once
        self._keyring = keyring
        self._clock = clock
        self._credentials: dict[str, Credential | None] = {}
        self._users: dict[str, User | None] = {}
        self._buckets: dict[str, Bucket | None] = {}

    async def refresh(self) -> int:
        """Read the configuration sequence; drop the cache when it moved."""
        sequence = await self._metadata.configuration_sequence()
        if sequence != self.sequence:
            self.sequence = sequence
            for remembered in (self._credentials, self._users, self._buckets):
                remembered.clear()
        return sequence

    def is_current(self) -> bool:
        """Whether what is remembered is what holds, found out without waiting; False also where that cannot be."""
        return self._at_once is not None and self._at_once.configuration_sequence() == self.sequence

    # ------------------------------------------------------------------ look-ups

    def recall(self, access_key_id: str, bucket_name: str) -> tuple[Credential, Bucket] | None:
        """Both as they were at `sequence`; None unless both are remembered and there."""
        credential, bucket = self._credentials.get(access_key_id), self._buckets.get(bucket_name)
        return None if credential is None or bucket is None else (credential, bucket)

    async def credential(self, access_key_id: str) -> Credential | None:
        """None when it is unknown or disabled."""
        return await self._remember(self._credentials, access_key_id, self._find_credential)

    async def user(self, canonical_id: str) -> User | None:
        """None when it is unknown."""
        return await self._remember(self._users, canonical_id, self._metadata.find_user)

    async def bucket(self, name: str) -> Bucket:
        """NoSuchBucket."""
        bucket = await self._remember(self._buckets, name, self._metadata.find_bucket)
        if bucket is None:
            raise NoSuchBucket(f"no bucket is named {name[:64]}")
        return bucket

    async def user_by_email(self, email: str) -> User | None:
        """None when no user, or more than one, has this address. Not remembered."""
        return await self._metadata.find_user_by_email(email)

    async def user_by_name(self, name: str) -> User | None:
        """Not remembered."""
        return await self._metadata.find_user_by_name(name)

    async def buckets(self, owner_id: str, prefix: str = "", after: str = "", limit: int = 10_000) -> list[Bucket]:
        """Of one owner, by name, those that begin with the prefix and come after `after`."""
        found: list[Bucket] = []
        while len(found) < limit:
            page = await self._metadata.list_buckets(owner_id, after, limit)
            found += [bucket for bucket in page if bucket.name.startswith(prefix)]
            if len(page) < limit or (prefix and page[-1].name[: len(prefix)] > prefix):
                break
            after = page[-1].name
        return found[:limit]

    async def users(self) -> list[tuple[User, list[AccessKey]]]:
        """By name."""
        return await self._metadata.list_users()

    # ------------------------------------------------------------------ changes

    async def create_bucket(
        self,
        name: str,
        owner: User,
        region: str,
        settings: dict[str, bytes],
        versioning: Versioning = Versioning.UNVERSIONED,
    ) -> Bucket:
        """Makes the bucket key durable first, then commits the bucket. BucketAlreadyExists.

        A crash in between leaves a key that nothing uses, which is harmless; the other order could lose a bucket.
        """
        taken = await self._metadata.find_bucket(name)
        if taken is not None:
            raise BucketAlreadyExists(f"a bucket is named {name[:64]} already", owner_id=taken.owner_id)
        key_id = await asyncio.to_thread(self._keyring.create_bucket_key)
        try:
            bucket: Bucket = await self._metadata.apply(
                CreateBucket(name, owner.canonical_id, region, key_id, versioning, settings)
            )
        except (BucketAlreadyExists, LimitExceeded):
            await self._drop_key(key_id)
            raise
        return bucket

    async def delete_bucket(self, bucket: Bucket) -> None:
        """NoSuchBucket, BucketNotEmpty. The bucket key stays: chunks that are not swept yet are sealed with it."""
        await self._metadata.apply(DeleteBucket(bucket.bucket_id))

    async def put_setting(self, bucket: Bucket, name: str, document: bytes | None) -> None:
        """Set (or with None remove) one sub-resource document."""
        await self._metadata.apply(PutBucketSetting(bucket.bucket_id, name, document))

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> None:
        """NoSuchBucket."""
        await self._metadata.apply(SetVersioning(bucket.bucket_id, versioning))

    async def create_user(self, user: User, access_key_id: str, secret_access_key: str) -> None:
        """With one access key, whose secret is sealed under the system key. UserAlreadyExists."""
        sealed = self._keyring.seal_access_secret(access_key_id, secret_access_key)
        access_key = AccessKey(access_key_id, user.canonical_id, sealed, created_ms=self._clock.now_ms())
        await self._metadata.apply(CreateUser(user, access_key))

    async def delete_user(self, name: str) -> None:
        """NoSuchUser; BucketNotEmpty when the user still owns buckets."""
        await self._metadata.apply(DeleteUser(name))

    # ------------------------------------------------------------------ within

    async def _find_credential(self, access_key_id: str) -> Credential | None:
        found = await self._metadata.find_access_key(access_key_id)
        if found is None or not found[0].enabled:
            return None
        access_key, user = found
        return Credential(
            access_key_id, self._keyring.open_access_secret(access_key_id, access_key.sealed_secret), user
        )

    async def _remember(
        self, remembered: dict[str, _T | None], name: str, find: Callable[[str], Awaitable[_T | None]]
    ) -> _T | None:
        try:
            return remembered[name]
        except KeyError:
            pass
        sequence = self.sequence
        found = await find(name)
        # What was read while the sequence moved may be older than the cache that it would go into.
        if sequence == self.sequence:
            if len(remembered) >= REMEMBERED_MAX:
                remembered.clear()
            remembered[name] = found
        return found

    async def _drop_key(self, key_id: str) -> None:
        try:
            await asyncio.to_thread(self._keyring.destroy, key_id)
        except (UnknownKeyId, Unavailable):
            return  # a key that nothing uses is harmless
