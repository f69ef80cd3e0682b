"""An operator who changes the redundancy of buckets, and stops and resumes laying out what is there already."""

from __future__ import annotations

import random

import msgspec

from cluster.bucket_redundancy import STOPPED, redundancy_of_blob
from cluster.redundancy import parse_redundancy
from storage.base.errors import Unavailable
from storage.metadata.commands import REDUNDANCY_SETTING, REWRITE_SETTING, PutBucketSetting
from tests.sim.clusters import SimCluster
from tests.sim.loop import run_now

POLICIES = ("replica:1", "replica:2", "replica:3", "ec:2+1", "ec:3+2")
STOPPED_SHARE = 0.15
RESUMED_SHARE = 0.6
PAGE_VERSIONS = 100_000


class LayoutChanges:
    """Of one run. Nothing gets a redundancy that survives less than the run's, whose faults are made for that."""

    def __init__(self, cluster: SimCluster, generator: random.Random, redundancy: str) -> None:
        self.default = parse_redundancy(redundancy)
        self._cluster = cluster
        self._random = generator
        self._link = cluster.world.link(cluster.operator)

    @property
    def width_max(self) -> int:
        """Pieces of a chunk, in any of them."""
        return max(parse_redundancy(text).width for text in (*self.policies(), str(self.default)))

    def policies(self) -> list[str]:
        """That the nodes there are can take with one of them away."""
        policies = [(text, parse_redundancy(text)) for text in POLICIES]
        nodes = len(self._cluster.nodes)
        return [text for text, it in policies if it.losses >= self.default.losses and it.width < nodes]

    def change(self) -> str:
        """Begin one; what it is."""
        at = self._random.randrange(len(self._cluster.buckets))
        bucket = self._cluster.buckets[at]
        is_stopped = REWRITE_SETTING in bucket.settings
        if self._random.random() < (RESUMED_SHARE if is_stopped else STOPPED_SHARE):
            name, document = REWRITE_SETTING, None if is_stopped else STOPPED
        else:
            name, document = REDUNDANCY_SETTING, self._random.choice(self.policies()).encode()
        self._cluster.operator.start(self._set(at, name, document))
        return f"{name} of {bucket.name}: {document.decode() if document else 'as ever'}"

    async def resume(self) -> None:
        """Let all be laid out as the buckets say. Unavailable."""
        for bucket in self._cluster.buckets:
            await self._link.apply(PutBucketSetting(bucket.bucket_id, REWRITE_SETTING, None))

    def find_flaws(self) -> list[str]:
        """Blobs that have another redundancy than their buckets say."""
        reads = self._cluster.world.records.reads
        flaws = []
        for bucket in self._cluster.buckets:
            current = run_now(reads.find_bucket(bucket.name))
            assert current is not None
            for blob in run_now(reads.list_bucket_blobs(bucket.bucket_id, 0, PAGE_VERSIONS)).blobs:
                wanted = redundancy_of_blob(current, self.default, blob.size)
                if blob.inline is None and blob.redundancy != str(wanted):
                    flaws.append(f"a blob of {bucket.name} is in {blob.redundancy}, not in {wanted}")
        return flaws

    async def _set(self, at: int, name: str, document: bytes | None) -> None:
        bucket = self._cluster.buckets[at]
        try:
            await self._link.apply(PutBucketSetting(bucket.bucket_id, name, document))
        except Unavailable:
            return  # perhaps it is so now, perhaps not
        # As a gateway that reads the setting: those that do not know it yet write as it was.
        settings = {key: value for key, value in self._cluster.buckets[at].settings.items() if key != name}
        if document is not None:
            settings[name] = document
        self._cluster.buckets[at] = msgspec.structs.replace(self._cluster.buckets[at], settings=settings)
