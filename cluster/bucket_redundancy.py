"""PURE. What a bucket's settings say of the redundancy of its blobs: of those that are written, and of those that are
laid out anew because they have another one."""

from __future__ import annotations

from cluster.redundancy import Redundancy, choose_for_size, parse_redundancy
from storage.base.errors import Corrupt
from storage.metadata.commands import REDUNDANCY_SETTING, REWRITE_SETTING
from storage.model import Bucket

STOPPED = b"stopped"
"""the value of REWRITE_SETTING that keeps what was written before as it is"""


def redundancy_of_bucket(bucket: Bucket, default: Redundancy) -> Redundancy:
    """Its setting's, or the cluster's. Corrupt for a setting that says none: a guess would promise something else."""
    setting = bucket.settings.get(REDUNDANCY_SETTING)
    if setting is None:
        return default
    try:
        return parse_redundancy(setting.decode("ascii"))
    except ValueError as error:
        raise Corrupt(f"the redundancy of bucket {bucket.name} cannot be read: {error}") from None


def redundancy_of_blob(bucket: Bucket, default: Redundancy, size: int) -> Redundancy:
    """What a blob of so many bytes in this bucket gets. Corrupt as above."""
    return choose_for_size(redundancy_of_bucket(bucket, default), size)


def is_rewrite_stopped(bucket: Bucket) -> bool:
    """Whether its blobs stay as they are, whatever the redundancy of new ones."""
    return bucket.settings.get(REWRITE_SETTING) == STOPPED
