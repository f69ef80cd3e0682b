"""Metadata in PostgreSQL: the engine for more than one gateway machine. Any number of processes share one database.

Isolation, per operation. All transactions are READ COMMITTED and take explicit locks; what follows from that:

Every command is one transaction, or several where its docstring says so (DeleteVersions between targets, DeleteBucket
between aborted uploads). CommitVersion, CompleteUpload, DeleteVersions and ChangeObject lock the row of the key's head
(the first writer of a new key makes it; the unique index lets one through) and decide by what they read after that: the
current version, conditions, the sequence, LastModified, object locks by the database's clock. So the writes of one key
happen one after the other, in an order that agrees with real time, and a conditional write sees every write before it.
Writes of different keys do not meet, except in blobs that copies share, whose rows they lock: shared to add a
reference, for update to see whether the last is gone.

The write session and the bucket are held by shared advisory locks from before they are looked at until the commit. Who
fences or closes a session, sets the versioning state of a bucket or deletes it takes the exclusive lock: it waits for
the writes that were let in, and every later one finds what it did. PutPart holds the upload's row shared,
CompleteUpload and AbortUpload for update. Changes of users, access keys, buckets and settings begin by raising the
configuration sequence, whose row makes them serial; RegisterNode, SetNodeState and SetNodeClosed likewise hold the
epoch's, and decide there whether their term is the newest.

What records chunks on nodes (CommitVersion, PutPart, SetReplicas, Relayout; never an inline body) holds the shared
advisory lock of placements from before it looks at which nodes are closed. SetNodeClosed takes the exclusive one before
everything else, for a second at most: it waits for the writes that were let in, and later ones find the node closed.
SetReplicas holds the blob's row shared, Relayout and whoever releases a blob hold it for update: of a new layout, a
change of replicas and a delete, each sees all of the other or nothing. What carries the term of a master without being
of the registry (FenceSessions, ForgetSessions, SetReplicas, Relayout, ForgetBlobs) is refused if that was over when it
began. It may commit beside a takeover; it is right all the same, as it is decided by the rows that it changes.

Locks are taken in one order (see tables). Where two transactions still wait for each other, over shared blobs, the
database ends one of them, which is tried again a bounded number of times; a refusal is an error to the database, so it
leaves nothing behind.

A command is answered after its commit is on disk, and on a synchronous standby where the database has one. Then it is
visible to every read, in every process, that begins later. Nobody sees it before that.

Every read is one statement and so one snapshot: read_version sees the version, its extents, blobs, chunk rows, inline
body and the configuration sequence of one committed state; so do list_parts, find_bucket, list_buckets, list_users,
find_access_key, cluster_map, list_released_blobs, find_chunk_places, find_blob_users, and every page of list_heads,
list_versions, list_uploads, list_chunk_places and list_bucket_blobs. find_referenced_blobs: one state per 5,000 ids;
ids are looked up independently. Row numbers of versions are not in the order of their commits: a walk of
list_bucket_blobs may pass by a version that was committed meanwhile. Pages of a listing are separate snapshots: a key
that is there during the whole listing is listed exactly once, one that comes or goes meanwhile may be or not.

Reads never wait for writes and writes never wait for reads. All reads go to the server that takes writes.
"""
