"""What the gateway counts of its requests, for /-/metrics: two increments and one observation each, and what reading
and writing took since the last one.

Where workers share numbers an increment costs 3 µs (a lock, a system call for the process id, a write to the page), so
all requests of PENDING_S_MAX are told together.

With PROMETHEUS_MULTIPROC_DIR in the environment every worker writes its numbers there, and any worker answers for all.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Mapping, Sequence

from prometheus_client import multiprocess
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import Counter, Histogram
from prometheus_client.registry import CollectorRegistry

from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw.worker_config import METRICS_VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)

PENDING_MAX = 256
"""requests that wait to be told"""
PENDING_S_MAX = 0.1
"""how long they do; other workers show them when they are told"""


class _Latencies(Histogram):
    """Takes many observations at the price of two increments and one for each bucket that has any."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        self._sum.inc(sum(amounts))
        for place, count in Tally([bisect_left(self._upper_bounds, amount) for amount in amounts]).items():
            self._buckets[place].inc(count)


class RequestMetrics:
    """Counts and latencies per operation, bytes in and out. One registry each, so that tests do not share."""

    def __init__(self, reads: ReadCounts, writes: WriteCounts) -> None:
        self._registry = CollectorRegistry()
        self._reads = reads
        self._told = ReadCounts()
        """as far as the counters have it"""
        self._writes = writes
        self._told_writes = WriteCounts()
        self._requests = Counter(
            "frostbyte_s3_requests", "S3 requests answered", ("operation", "status"), registry=self._registry
        )
        self._seconds = _Latencies(
            "frostbyte_s3_request_seconds",
            "Time from the request's head to the end of its answer",
            ("operation",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._sent = Counter("frostbyte_s3_sent_bytes", "Bytes of response bodies", registry=self._registry)
        self._received = Counter("frostbyte_s3_received_bytes", "Bytes of request bodies", registry=self._registry)
        stored = Counter(
            "frostbyte_read_stored_bytes",
            "Sealed bytes that reads took",
            ("kind",),
            registry=self._registry,
        )
        served = Counter(
            "frostbyte_read_served_bytes", "Plaintext bytes that came of them", ("kind",), registry=self._registry
        )
        near_bytes = Counter(
            "frostbyte_read_local_bytes", "Those of them read straight from directories here", registry=self._registry
        )
        near_refused = Counter(
            "frostbyte_read_local_refused",
            "Pieces that such a directory did not give, so that the datanode was asked",
            registry=self._registry,
        )
        self._read_counters = {
            "stored_whole": stored.labels("whole"),
            "stored_degraded": stored.labels("degraded"),
            "served_whole": served.labels("whole"),
            "served_degraded": served.labels("degraded"),
            "near_bytes": near_bytes,
            "near_refused": near_refused,
        }
        """by the field of ReadCounts"""
        self._write_counters = {
            "near_bytes": Counter(
                "frostbyte_write_local_bytes",
                "Sealed bytes written straight into directories here",
                registry=self._registry,
            ),
            "near_pieces": Counter("frostbyte_write_local_pieces", "Pieces that these were", registry=self._registry),
        }
        """by the field of WriteCounts"""
        self._children: dict[tuple[str, int], tuple[Counter, _Latencies]] = {}
        self._pending: dict[tuple[str, int], list[float]] = {}
        self._pending_count = self._pending_received = self._pending_sent = 0

    def record(self, operation: str, status: int, elapsed_s: float, received_bytes: int, sent_bytes: int) -> None:
        """One request that is over. status 0: cut before an answer began."""
        latencies = self._pending.get((operation, status))
        if latencies is None:
            latencies = self._pending[(operation, status)] = []
        latencies.append(elapsed_s)
        self._pending_received += received_bytes
        self._pending_sent += sent_bytes
        self._pending_count += 1
        if self._pending_count == 1:
            asyncio.get_running_loop().call_later(PENDING_S_MAX, self.tell)
        elif self._pending_count >= PENDING_MAX:
            self.tell()

    def tell(self) -> None:
        """The counters are what they should be by now."""
        pending, self._pending = self._pending, {}
        for (operation, status), latencies in pending.items():
            requests, seconds = self._children.get((operation, status)) or self._child(operation, status)
            requests.inc(len(latencies))
            seconds.observe_all(latencies)
        if self._pending_received:
            self._received.inc(self._pending_received)
        if self._pending_sent:
            self._sent.inc(self._pending_sent)
        self._pending_count = self._pending_received = self._pending_sent = 0
        if self._reads != self._told:
            _follow(self._read_counters, self._reads, self._told)
        if self._writes != self._told_writes:
            _follow(self._write_counters, self._writes, self._told_writes)

    def _child(self, operation: str, status: int) -> tuple[Counter, _Latencies]:
        child = self._requests.labels(operation, str(status)), self._seconds.labels(operation)
        self._children[(operation, status)] = child
        return child

    def render(self) -> bytes:
        """The exposition text."""
        self.tell()
        if METRICS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _follow(counters: Mapping[str, Counter], counts: object, told: object) -> None:
    """counters: by field; told: what they have of the counts so far."""
    for field, counter in counters.items():
        count = getattr(counts, field)
        grown = count - getattr(told, field)
        if grown:
            counter.inc(grown)
            setattr(told, field, count)
