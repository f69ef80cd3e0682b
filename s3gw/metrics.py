"""What the gateway counts of its requests, for /-/metrics. A request costs two increments and one observation, and what
reading took since the last one is added.

With PROMETHEUS_MULTIPROC_DIR in the environment every worker writes its numbers there, and any worker answers for all.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

from cluster.read_counts import ReadCounts
from s3gw.worker_config import METRICS_VARIABLE

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)


class RequestMetrics:
    """Counts and latencies per operation, bytes in and out. One registry each, so that tests do not share."""

    def __init__(self, reads: ReadCounts) -> None:
        self._registry = CollectorRegistry()
        self._reads = reads
        self._told = ReadCounts()
        """as far as the counters have it"""
        self._requests = Counter(
            "frostbyte_s3_requests", "S3 requests answered", ("operation", "status"), registry=self._registry
        )
        self._seconds = Histogram(
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
        self._children: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def record(self, operation: str, status: int, elapsed_s: float, received_bytes: int, sent_bytes: int) -> None:
        """One request that is over. status 0: cut before an answer began."""
        children = self._children.get((operation, status))
        if children is None:
            children = (self._requests.labels(operation, str(status)), self._seconds.labels(operation))
            self._children[(operation, status)] = children
        children[0].inc()
        children[1].observe(elapsed_s)
        if received_bytes:
            self._received.inc(received_bytes)
        if sent_bytes:
            self._sent.inc(sent_bytes)
        if self._reads != self._told:
            self._follow_reads()

    def _follow_reads(self) -> None:
        for field, counter in self._read_counters.items():
            count = getattr(self._reads, field)
            grown = count - getattr(self._told, field)
            if grown:
                counter.inc(grown)
                setattr(self._told, field, count)

    def render(self) -> bytes:
        """The exposition text."""
        if METRICS_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
