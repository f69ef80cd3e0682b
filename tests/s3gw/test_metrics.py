"""The counters of a gateway: what one request adds."""

from __future__ import annotations

import re

import pytest

from cluster.read_counts import ReadCounts
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


def test_what_reading_took_is_told_once() -> None:
    """Whole and degraded reads apart, so that the bytes read per byte served are known of each."""
    reads = ReadCounts()
    metrics = RequestMetrics(reads)
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
