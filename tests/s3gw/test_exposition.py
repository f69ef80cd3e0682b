"""The text that a scrape is answered with."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from s3gw.exposition import format_metrics


def test_it_is_what_prometheus_client_writes() -> None:
    """Line by line, but for the times at which series began."""
    registry = CollectorRegistry()
    requests = Counter("requests", 'Of "all"\nkinds \\ there are', ("operation", "status"), registry=registry)
    requests.labels("PutObject", "200").inc(3)
    requests.labels('a"b\\c\nd é', "503").inc(0.5)
    Counter("sent_bytes", "Bytes", registry=registry).inc(1 << 62)
    Gauge("silent", "Nothing yet", ("kind",), registry=registry)
    seconds = Histogram("seconds", "Time", ("operation",), buckets=(0.5, 2), registry=registry)
    for elapsed_s in (0.1, 1, 1e9):
        seconds.labels("GetObject").observe(elapsed_s)
    expected = [line for line in generate_latest(registry).splitlines(keepends=True) if b"_created" not in line]
    assert format_metrics(registry.collect()) == b"".join(expected)
    assert len(expected) > 12
