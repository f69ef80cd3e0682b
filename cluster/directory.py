"""Directory: the door that s3gw enters for users, buckets and settings. (signatures; the implementation follows)"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from storage.model import AccessKey, Bucket, User, Versioning


class Credential(NamedTuple):
    """An access key with its secret opened; `repr` hides it."""

    access_key_id: str
    secret_access_key: str
    user: User

    def __repr__(self) -> str:
        return f"Credential({self.access_key_id})"


class Directory(Protocol):
    """Lookups are cached and valid for one configuration sequence only; `refresh` is cheap and called once a request."""

    sequence: int

    async def refresh(self) -> int:
        """Read the configuration sequence; drop the cache when it moved."""
        ...

    async def credential(self, access_key_id: str) -> Credential | None: ...

    async def user(self, canonical_id: str) -> User | None: ...

    async def bucket(self, name: str) -> Bucket:
        """NoSuchBucket."""
        ...

    async def buckets(self, owner_id: str, prefix: str = "", after: str = "", limit: int = 10_000) -> list[Bucket]: ...

    async def create_bucket(self, name: str, owner: User, region: str, settings: dict[str, bytes]) -> Bucket:
        """Makes the bucket key durable first, then commits the bucket. BucketAlreadyExists."""
        ...

    async def delete_bucket(self, bucket: Bucket) -> None: ...

    async def put_setting(self, bucket: Bucket, name: str, document: bytes | None) -> None: ...

    async def set_versioning(self, bucket: Bucket, versioning: Versioning) -> None: ...

    async def create_user(self, user: User, access_key_id: str, secret_access_key: str) -> None: ...

    async def delete_user(self, name: str) -> None: ...

    async def users(self) -> list[tuple[User, list[AccessKey]]]: ...
