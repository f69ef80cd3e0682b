"""Which function applies which command, and what is known from one to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from storage.metadata import commands as c
from storage.metadata.sqlite import (
    blobs,
    buckets,
    changes,
    commits,
    deletes,
    layouts,
    masters,
    nodes,
    sessions,
    uploads,
    users,
)
from storage.metadata.sqlite.database import Transaction

Handler = Callable[[Transaction, Any], Any]

HANDLERS: dict[type[c.Command], Handler] = {
    c.OpenSession: sessions.open_session,
    c.RenewSession: sessions.renew_session,
    c.CloseSession: sessions.close_session,
    c.FenceSessions: sessions.fence_sessions,
    c.ForgetSessions: sessions.forget_sessions,
    c.ExtendLeases: sessions.extend_all_leases,
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

_LEAVES_WRITABLE = frozenset(
    (
        c.CommitVersion,
        c.PutPart,
        c.CreateUpload,
        c.CompleteUpload,
        c.AbortUpload,
        c.DeleteVersions,
        c.ChangeObject,
        c.ReleaseBlobs,
    )
)
"""what changes neither sessions nor buckets"""


def apply_command(tx: Transaction, command: c.Command) -> Any:
    """The result as the command's docstring says. Refused, before or after its first change."""
    kind = type(command)
    if kind not in _LEAVES_WRITABLE:
        tx.writable.clear()
    return HANDLERS[kind](tx, command)
