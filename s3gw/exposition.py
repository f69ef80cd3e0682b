"""PURE. Prometheus's text format 0.0.4 of counters and histograms.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. prometheus_client writes it too, in a module that
brings an HTTP server and client along. When a series began (`_created`) is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_BEGAN = "_created"


def format_metrics(metrics: Iterable[Metric]) -> bytes:
    """As a scrape is answered. Their names and those of labels are plain; what labels say may be anything."""
    return "".join(line for metric in metrics for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    help_text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {name} {help_text}\n# TYPE {name} {metric.type}\n"
    for sample in metric.samples:
        if not sample.name.endswith(_BEGAN):
            value: str = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
            yield f"{sample.name}{_labels(sample)} {value}\n"


def _labels(sample: Sample) -> str:
    said = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(sample.labels.items()))
    return f"{{{said}}}" if said else ""


def _escape(said: str) -> str:
    return said.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
