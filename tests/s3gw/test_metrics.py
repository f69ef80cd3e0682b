"""The counters of a gateway: what one request adds."""

from __future__ import annotations

import asyncio
import re

import pytest

from cluster.read_counts import ReadCounts
from cluster.write_counts import WriteCounts
from s3gw.metrics import RequestMetrics
from s3gw.worker_config import METRICS_VARIABLE


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters in memory."""
    monkeypatch.delenv(METRICS_VARIABLE, raising=False)


def value(metrics: RequestMetrics, name: str) -> float:
    """Of one line of the exposition."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics.render().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found.group(1))


async def test_what_reading_took_is_told_once() -> None:
    """Whole and degraded reads apart, so that the bytes read per byte served are known of each."""
    reads = ReadCounts()
    metrics = RequestMetrics(reads, WriteCounts())
    reads.add(1000, 900, is_degraded=False)
    reads.add(400, 90, is_degraded=True)
    metrics.record("GetObject", 200, 0.1, 0, 990)
    metrics.record("GetObject", 200, 0.1, 0, 0)
    reads.add(10, 0, is_degraded=True)
    metrics.record("GetObject", 503, 0.1, 0, 0)
    assert value(metrics, 'frostbyte_read_stored_bytes_total{kind="whole"}') == 1000
    assert value(metrics, 'frostbyte_read_served_bytes_total{kind="whole"}') == 900
    assert value(metrics, 'frostbyte_read_stored_bytes_total{kind="degraded"}') == 410
    assert value(metrics, 'frostbyte_read_served_bytes_total{kind="degraded"}') == 90
    assert value(metrics, 'frostbyte_s3_requests_total{operation="GetObject",status="200"}') == 2
    assert value(metrics, "frostbyte_s3_sent_bytes_total") == 990


async def test_what_was_written_past_datanodes_is_told_once() -> None:
    """Pieces, and their bytes."""
    writes = WriteCounts()
    metrics = RequestMetrics(ReadCounts(), writes)
    for length in (1000, 20):
        writes.add(length)
        metrics.record("PutObject", 200, 0.1, length, 0)
        await asyncio.sleep(0)
    assert value(metrics, "frostbyte_write_local_bytes_total") == 1020
    assert value(metrics, "frostbyte_write_local_pieces_total") == 2


async def test_requests_of_one_turn_are_told_as_each_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every latency is in its own bucket, whether its turn has ended or there were too many to wait for that."""
    monkeypatch.setattr("s3gw.metrics.PENDING_MAX", 3)
    metrics = RequestMetrics(ReadCounts(), WriteCounts())
    for elapsed_s in (0.0005, 0.0006, 0.9, 500.0):
        metrics.record("PutObject", 200, elapsed_s, 10, 0)
    metrics.record("PutObject", 503, 0.9, 1, 7)
    await asyncio.sleep(0)
    metrics.record("GetObject", 200, 0.003, 0, 30)
    seconds = "frostbyte_s3_request_seconds"
    buckets = {0.0005: 1, 0.001: 2, 0.5: 2, 1.0: 4, 120.0: 4}
    for bound, count in buckets.items():
        assert value(metrics, f'{seconds}_bucket{{le="{bound}",operation="PutObject"}}') == count
    assert value(metrics, f'{seconds}_count{{operation="PutObject"}}') == 5
    assert value(metrics, f'{seconds}_sum{{operation="PutObject"}}') == pytest.approx(501.8011)
    assert value(metrics, f'{seconds}_count{{operation="GetObject"}}') == 1
    assert value(metrics, 'frostbyte_s3_requests_total{operation="PutObject",status="200"}') == 4
    assert value(metrics, 'frostbyte_s3_requests_total{operation="PutObject",status="503"}') == 1
    assert value(metrics, "frostbyte_s3_received_bytes_total") == 41
    assert value(metrics, "frostbyte_s3_sent_bytes_total") == 37
