"""Metadata in one SQLite file (WAL, synchronous=FULL): the embedded engine.

Isolation, per operation:

Every command is one transaction, or several where its docstring says so (DeleteVersions between targets, DeleteBucket
between aborted uploads). All commands of all workers run one after the other on the owner's one thread: they are
serialisable, in the order of their commits, and that order agrees with real time (strict serialisability). What a
command decides by - the write session, the bucket and its versioning state, the head under the key, conditions, parts,
reference checks, closed nodes - it reads inside its own transaction. Commands that wait together share one COMMIT; a
refusal undoes its own command only.

A command is answered after the log is synced. Then it is visible to every read, in every process, that begins later. It
may be seen by others a moment before it is answered, and never be seen and then lost: what a reader sees is in the log,
and a kill of the owner keeps it; only a power cut between the write and the sync of the log can take back what was seen
but not answered.

read_version, list_heads, list_parts, list_uploads, list_buckets, list_users, find_bucket, find_access_key, read_chunks,
cluster_map: one read transaction each, one committed state: the version, its extents, blobs, chunk rows, inline body
and the configuration sequence belong together. configuration_sequence, find_user, read_upload, find_completed_upload,
list_sessions, list_released_blobs: one statement, likewise one state. find_referenced_blobs, find_chunk_places,
find_blob_users: one state per 500 ids; ids are looked up independently. list_chunk_places and list_bucket_blobs: one
state per page; a chunk that has a row during the whole walk is given exactly once, in a layout that it had meanwhile.
Pages of a listing are separate snapshots: a key that is there during the whole listing is listed exactly once, one that
comes or goes meanwhile may be or not.

Reads never wait for writes and writes never wait for reads.
"""
