"""Lays out anew what is kept otherwise than its bucket says, in the process of the active master.

A run looks through the buckets that are due: those whose redundancy was changed, those in which something failed, and
each now and then. Blobs that have another redundancy than they would be written in now are laid out anew, a few at
once, at the pace of a throttle (bytes read a second). The bucket's settings are read again before each: what is stopped
stops with the blob under way. What was done is in the records alone, so that a run which ends anywhere is resumed by
the next one, here or in another master.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from cluster.bucket_redundancy import is_rewrite_stopped, redundancy_of_bucket
from cluster.byte_budget import ByteBudget
from cluster.chunk_writes import BUDGET_BYTES_MIN, ChunkWrites
from cluster.cleanup import Cleanup
from cluster.deadlines import Deadlines
from cluster.maintenance.blob_rewrite import BlobRewriter, Superseded
from cluster.maintenance.claims import BlobClaims
from cluster.maintenance.rewrite import Attempts, Looks, Rewrite, is_exhausted
from cluster.maintenance.sealed_read import SealedReader
from cluster.maintenance.throttle import Throttle
from cluster.nodes import NodePool
from cluster.placer import Placer
from cluster.redundancy import Redundancy
from storage.base.clock import Clock
from storage.base.errors import ChunkError, Corrupt, NotEnoughNodes, StalePlacement, Unavailable
from storage.metadata.interface import Metadata
from storage.model import Blob, Bucket, ClusterMap

BLOBS_AT_ONCE = 4
BUDGET_BYTES = BLOBS_AT_ONCE * BUDGET_BYTES_MIN
"""of sealed bytes in memory; no stripe ever waits for another one's memory"""
PAGE_VERSIONS = 500
PAGE_BUCKETS = 1_000
PAUSE_S = 0.02
"""between pages, so that a look never has the metadata to itself"""
STRIPE_S = 86_400.0
"""a stripe waits for the throttle here, and is in nobody's way"""

_log = logging.getLogger(__name__)
_BLOB_FAILURES = (ChunkError, Corrupt, StalePlacement, Unavailable)


class Rewriter:
    """One per cluster; `run` is called by a background loop, and runs never overlap."""

    def __init__(
        self,
        metadata: Metadata,
        nodes: NodePool,
        claims: BlobClaims,
        throttle: Throttle,
        default: Redundancy,
        current_map: Callable[[], ClusterMap],
        current_term: Callable[[], int],
        clock: Clock,
        *,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - immutable
        page_versions: int = PAGE_VERSIONS,
        pause_s: float = PAUSE_S,
    ) -> None:
        """default: of buckets that do not say otherwise."""
        self.counts: Counter[str] = Counter()
        """of the run under way, or of the last that looked at anything: blobs looked at, rewritten and failed; bytes"""
        self._metadata = metadata
        self._nodes = nodes
        self._claims = claims
        self._default = default
        self._current_map = current_map
        self._current_term = current_term
        self._clock = clock
        self._page_versions = page_versions
        self._pause_s = pause_s
        self._placer = Placer(nodes)
        self._blobs = BlobRewriter(
            metadata,
            nodes,
            self._placer,
            SealedReader(nodes, throttle, deadlines),
            ChunkWrites(ByteBudget(BUDGET_BYTES), nodes, deadlines._replace(stripe_s=STRIPE_S)),
            Cleanup(nodes, metadata, deadlines),
            current_term,
        )
        self._attempts = Attempts()
        self._looks = Looks()

    def order(self) -> None:
        """The next run looks through every bucket."""
        self._looks.forget()

    async def run(self) -> None:
        """Unavailable without the metadata, NotActiveMaster after a takeover."""
        buckets = [bucket async for bucket in self._list_buckets()]
        self._looks.keep_only(buckets)
        due = [bucket for bucket in buckets if self._is_due(bucket)]
        if due:
            self.counts.clear()
        for bucket in due:
            await self._look_through(bucket, redundancy_of_bucket(bucket, self._default))

    async def _list_buckets(self) -> AsyncIterator[Bucket]:
        after = ""
        while True:
            page = await self._metadata.list_buckets(None, after, PAGE_BUCKETS)
            for bucket in page:
                yield bucket
            if len(page) < PAGE_BUCKETS:
                return
            after = page[-1].name

    def _is_due(self, bucket: Bucket) -> bool:
        try:
            return self._looks.is_due(bucket, self._default, self._clock.monotonic_s())
        except Corrupt as error:
            _log.error("%s", error)
            return False

    async def _look_through(self, bucket: Bucket, policy: Redundancy) -> None:
        before = self.counts.copy()
        after: int | None = 0
        try:
            while after is not None:
                await self._follow_map()
                page = await self._metadata.list_bucket_blobs(bucket.bucket_id, after, self._page_versions)
                self.counts["looked_at"] += len(page.blobs)
                rewrites = iter(self._plan(page.blobs, policy))
                while batch := list(islice(rewrites, BLOBS_AT_ONCE)):
                    if not await self._is_still_wanted(bucket, policy):
                        return
                    await self._rewrite_all(batch)
                after = page.next_after
                await asyncio.sleep(self._pause_s)
        except NotEnoughNodes as error:
            _log.info("bucket %s is not laid out anew for now: %s", bucket.name, error)
        done = self.counts - before
        now_s = self._clock.monotonic_s()
        self._looks.note(bucket, policy, now_s, failed=done["failed"], rewritten=done["rewritten"])
        if done["rewritten"] or done["failed"]:
            _log.info(
                "bucket %s: %d blobs were laid out anew, %d failed", bucket.name, done["rewritten"], done["failed"]
            )

    async def _follow_map(self) -> None:
        cluster_map = self._current_map()
        await self._nodes.adopt(cluster_map)
        self._placer.adopt(cluster_map)

    def _plan(self, blobs: tuple[Blob, ...], policy: Redundancy) -> list[Rewrite]:
        """Each blob once, however many versions share it."""
        distinct = {blob.blob_id: blob for blob in blobs}.values()
        term = self._current_term()
        plans = [rewrite for blob in distinct if (rewrite := self._attempts.plan(blob, policy, term)) is not None]
        return [rewrite for rewrite in plans if not is_exhausted(rewrite)]

    async def _is_still_wanted(self, bucket: Bucket, policy: Redundancy) -> bool:
        """Whether the bucket is there, and still says so."""
        fresh = await self._metadata.find_bucket(bucket.name)
        if fresh is None or fresh.bucket_id != bucket.bucket_id or is_rewrite_stopped(fresh):
            return False
        return redundancy_of_bucket(fresh, self._default) == policy

    async def _rewrite_all(self, batch: Sequence[Rewrite]) -> None:
        """Side by side, each to its end. NotEnoughNodes, NotActiveMaster."""
        ends = await asyncio.gather(*(self._rewrite(rewrite) for rewrite in batch), return_exceptions=True)
        for failure in ends:
            if failure is not None:
                raise failure

    async def _rewrite(self, rewrite: Rewrite) -> None:
        blob = rewrite.blob
        with self._claims.claim(blob.blob_id) as is_mine:
            if not is_mine:
                self.counts["failed"] += 1  # another job has it in hand; tried again with those that failed
                return
            self._attempts.note(rewrite)
            try:
                sealed_bytes = await self._blobs.rewrite(rewrite)
            except Superseded:
                return
            except NotEnoughNodes:
                self.counts["failed"] += 1
                raise
            except _BLOB_FAILURES as error:
                self.counts["failed"] += 1
                _log.info("blob %s stays in %s for now: %s", blob.blob_id.hex(), blob.redundancy, error)
                return
        self.counts["rewritten"] += 1
        self.counts["bytes"] += sealed_bytes
