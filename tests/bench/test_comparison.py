"""What several gateways of one store did together."""

from __future__ import annotations

from tests.bench.comparison import add_up
from tests.bench.scenarios import Sample


def test_rates_add_up_and_shares_are_seen_by_all() -> None:
    """The worst latency counts; processor time was measured over the same processes by each."""
    samples = [Sample(1000.0, 0.2, 1.1, p99_ms=8.0, errors=1), Sample(900.0, 0.3, 1.0, p99_ms=12.0)]
    assert add_up(samples) == Sample(1900.0, 0.3, 1.1, p99_ms=12.0, errors=1)


def test_one_alone_is_itself() -> None:
    """Also without a latency."""
    sample = Sample(5.0, 0.1, 0.2)
    assert add_up([sample]) == sample
