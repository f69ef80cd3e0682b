"""Finds the names of what cannot be read: the objects, and the parts of open uploads, that lost chunks are in."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.maintenance.survey import Health
from cluster.maintenance.survey_status import AFFECTED_NAMES_MAX, AffectedObject
from storage.metadata.interface import Metadata

BLOBS_AT_ONCE = 100


async def name_affected(metadata: Metadata, blobs: Mapping[bytes, Health]) -> tuple[AffectedObject, ...]:
    """blobs: LOST or UNAVAILABLE, by blob id. → at most AFFECTED_NAMES_MAX, those that are lost first. Unavailable."""
    found: list[AffectedObject] = []
    blob_ids = sorted(blobs, key=lambda blob_id: (blobs[blob_id] is not Health.LOST, blob_id))
    for begin in range(0, len(blob_ids), BLOBS_AT_ONCE):
        room = AFFECTED_NAMES_MAX - len(found)
        if room <= 0:
            break
        for user in await metadata.find_blob_users(blob_ids[begin : begin + BLOBS_AT_ONCE], room):
            key = user.object_key.decode("utf-8", "backslashreplace")
            state = blobs[user.blob_id].value
            found.append(AffectedObject(state, user.bucket_name, key, user.version_id, user.upload_id))
    return tuple(sorted(found, key=lambda it: (it.state, it.bucket, it.object_key)))
