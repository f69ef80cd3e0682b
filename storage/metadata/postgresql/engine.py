"""PostgresMetadata: the interface over a pool of connections to one PostgreSQL database, which any number of processes
share. What each of them does is in one module per aggregate, its SQL on top.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from storage.metadata import commands as c
from storage.metadata.interface import (
    CHUNK_PAGE_ROWS,
    BlobPage,
    BlobUser,
    ChunkPlace,
    CompletedUpload,
    HeadPage,
    Metadata,
    PartPage,
    UploadPage,
    VersionPage,
    VersionRead,
)
from storage.metadata.postgresql import (
    blobs,
    buckets,
    changes,
    commits,
    deletes,
    layouts,
    listing,
    masters,
    nodes,
    objects,
    places,
    sessions,
    uploads,
    users,
    version_listing,
)
from storage.metadata.postgresql.configuration import SequenceReader
from storage.metadata.postgresql.database import Database
from storage.metadata.postgresql.durability import Durability
from storage.model import AccessKey, Blob, Bucket, ByteRange, Chunk, ClusterMap, Upload, User, WriteSession

Handler = Callable[[Database, Any], Awaitable[Any]]

HANDLERS: dict[type[c.Command], Handler] = {
    c.OpenSession: sessions.open_session,
    c.RenewSession: sessions.renew_session,
    c.CloseSession: sessions.close_session,
    c.FenceSessions: sessions.fence_sessions,
    c.ForgetSessions: sessions.forget_sessions,
    c.CreateUser: users.create_user,
    c.PutRootUser: users.put_root_user,
    c.DeleteUser: users.delete_user,
    c.CreateAccessKey: users.create_access_key,
    c.DeleteAccessKey: users.delete_access_key,
    c.CreateBucket: buckets.create_bucket,
    c.DeleteBucket: buckets.delete_bucket,
    c.PutBucketSetting: buckets.put_bucket_setting,
    c.SetVersioning: buckets.set_versioning,
    c.CommitVersion: commits.commit_version,
    c.DeleteVersions: deletes.delete_versions,
    c.ChangeObject: changes.change_object,
    c.ReleaseBlobs: blobs.release_blobs,
    c.CreateUpload: uploads.create_upload,
    c.PutPart: uploads.put_part,
    c.CompleteUpload: uploads.complete_upload,
    c.AbortUpload: uploads.abort_upload,
    c.AcquireMasterLease: masters.acquire_master_lease,
    c.ReleaseMasterLease: masters.release_master_lease,
    c.RegisterNode: nodes.register_node,
    c.SetNodeState: nodes.set_node_state,
    c.SetNodeClosed: nodes.set_node_closed,
    c.SetReplicas: layouts.set_replicas,
    c.Relayout: layouts.relayout,
    c.ForgetBlobs: layouts.forget_blobs,
}


class PostgresMetadata(Metadata):
    """Opened by storage.metadata.postgresql.open."""

    def __init__(self, database: Database, durability: Durability) -> None:
        self._database = database
        self._sequence = SequenceReader(database)
        self.durability = durability
        """as it was at the opening"""

    async def apply(self, command: c.Command) -> Any:
        return await HANDLERS[type(command)](self._database, command)

    # ------------------------------------------------------------------ directory

    async def configuration_sequence(self) -> int:
        return await self._sequence.read()

    async def find_access_key(self, access_key_id: str) -> tuple[AccessKey, User] | None:
        return await users.find_access_key(self._database, access_key_id)

    async def find_user(self, canonical_id: str) -> User | None:
        return await users.find_user(self._database, canonical_id)

    async def find_user_by_email(self, email: str) -> User | None:
        return await users.find_user_by_email(self._database, email)

    async def find_user_by_name(self, name: str) -> User | None:
        return await users.find_user_by_name(self._database, name)

    async def list_users(self) -> list[tuple[User, list[AccessKey]]]:
        return await users.list_users(self._database)

    async def find_bucket(self, name: str) -> Bucket | None:
        return await buckets.find_bucket(self._database, name)

    async def list_buckets(self, owner_id: str | None, after: str = "", limit: int = 10_000) -> list[Bucket]:
        return await buckets.list_buckets(self._database, owner_id, after, limit)

    # ------------------------------------------------------------------ objects

    async def read_version(
        self,
        bucket_id: int,
        object_key: bytes,
        version_id: str | None = None,
        *,
        byte_range: ByteRange | None = None,
        part_number: int | None = None,
        with_body: bool = True,
    ) -> VersionRead:
        return await objects.read_version(
            self._database, bucket_id, object_key, version_id, byte_range, part_number, with_body
        )

    async def read_chunks(self, blob_id: bytes, from_index: int, limit: int = CHUNK_PAGE_ROWS) -> list[Chunk]:
        return await blobs.read_chunks(self._database, blob_id, from_index, limit)

    async def list_heads(
        self, bucket_id: int, *, prefix: bytes = b"", after: bytes = b"", delimiter: bytes = b"", limit: int = 1000
    ) -> HeadPage:
        return await listing.list_heads(
            self._database, bucket_id, prefix=prefix, after=after, delimiter=delimiter, limit=limit
        )

    async def list_versions(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> VersionPage:
        return await version_listing.list_versions(
            self._database, bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # ------------------------------------------------------------------ multipart uploads

    async def read_upload(self, bucket_id: int, object_key: bytes, upload_id: str) -> Upload:
        return await uploads.read_upload(self._database, bucket_id, object_key, upload_id)

    async def find_completed_upload(self, bucket_id: int, object_key: bytes, upload_id: str) -> CompletedUpload | None:
        return await uploads.find_completed_upload(self._database, bucket_id, object_key, upload_id)

    async def list_parts(
        self, bucket_id: int, object_key: bytes, upload_id: str, after: int = 0, limit: int = 10_000
    ) -> PartPage:
        return await uploads.list_parts(self._database, bucket_id, object_key, upload_id, after, limit)

    async def list_uploads(
        self,
        bucket_id: int,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: tuple[bytes, str] = (b"", ""),
        limit: int = 1000,
    ) -> UploadPage:
        return await listing.list_uploads(
            self._database, bucket_id, prefix=prefix, delimiter=delimiter, after=after, limit=limit
        )

    # ------------------------------------------------------------------ cluster

    async def cluster_map(self) -> ClusterMap:
        return await nodes.cluster_map(self._database)

    async def list_sessions(self) -> list[WriteSession]:
        return await sessions.list_sessions(self._database)

    async def list_released_blobs(self, before_ms: int, limit: int) -> list[Blob]:
        return await layouts.list_released(self._database, before_ms, limit)

    async def list_chunk_places(self, after: tuple[bytes, int] | None, limit: int) -> list[ChunkPlace]:
        return await places.list_chunk_places(self._database, after, limit)

    async def find_chunk_places(self, chunks: Sequence[tuple[bytes, int]]) -> list[ChunkPlace]:
        return await places.find_chunk_places(self._database, chunks)

    async def find_blob_users(self, blob_ids: Sequence[bytes], limit: int) -> list[BlobUser]:
        return await places.find_blob_users(self._database, blob_ids, limit)

    async def list_bucket_blobs(self, bucket_id: int, after: int, limit: int) -> BlobPage:
        return await places.list_bucket_blobs(self._database, bucket_id, after, limit)

    async def find_referenced_blobs(self, blob_ids: Sequence[bytes]) -> set[bytes]:
        return await blobs.find_recorded(self._database, blob_ids)

    @property
    def loss_window(self) -> tuple[str, ...]:
        return self.durability.problems

    async def close(self) -> None:
        await self._database.close()
