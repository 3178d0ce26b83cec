"""The metrics of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from lrm.serving.engine.answer import Flags

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name to description and reader."""
Counts = Mapping[str, tuple[str, str, Callable[[], Mapping[str, float]]]]
"""Name without `_total` to description, label, and a reader of one count for each value of the label."""


class Metrics(NamedTuple):
    """The metrics of one server."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    in_flight: Gauge
    batch_size: Histogram
    rejected: Counter
    flagged: Counter
    missing: Counter
    expired: Counter
    events: Counter
    unknown_items: Counter
    model: Gauge
    models: set[tuple[str, str]]
    """Name and version of all models that were in service."""

    def show_model(self, name: str, version: str) -> None:
        """Set the gauge of the model in service to 1, and those of earlier ones to 0."""
        self.models.add((name, version))
        for model in self.models:
            self.model.labels(*model).set(model == (name, version))


class CountsOnDemand(Collector):
    """Counters that another part of the server keeps, read when Prometheus asks."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield a family for each count."""
        for name, (description, label, read) in self._counts.items():
            family = CounterMetricFamily(name, description, labels=[label])
            for value, count in read().items():
                family.add_metric([value], count)
            yield family


def new_metrics(gauges: Gauges = {}, counts: Counts = {}) -> Metrics:  # noqa: B006 - not changed
    """Return metrics at zero, with gauges and counts that are read when Prometheus asks."""
    registry = CollectorRegistry()
    for name, (description, read) in gauges.items():
        Gauge(name, description, registry=registry).set_function(read)
    registry.register(CountsOnDemand(counts))

    def counter(name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=registry)

    return Metrics(
        registry=registry,
        requests=counter("lrm_http_requests_total", "HTTP requests", "route", "status"),
        seconds=Histogram(
            "lrm_http_request_duration_seconds", "Latency", ["route"], buckets=LATENCY_BUCKETS_S, registry=registry
        ),
        in_flight=Gauge("lrm_http_requests_in_flight", "Requests in progress", registry=registry),
        batch_size=Histogram(
            "lrm_batch_size", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        ),
        rejected=counter("lrm_requests_rejected_total", "Requests rejected, by reason", "reason"),
        flagged=counter("lrm_answers_flagged_total", "Answers that lack something, by flag", "flag"),
        missing=counter("lrm_signals_missing_total", "Answers without a value of the signal", "signal"),
        expired=counter("lrm_signals_expired_total", "Answers whose value of the signal had expired", "signal"),
        events=counter("lrm_events_ingested_total", "Events taken, new or duplicate", "status"),
        unknown_items=counter(
            "lrm_unknown_items_total", "Items of requests or events that are not in the catalogue", "source"
        ),
        model=Gauge("lrm_model_info", "The model in service is 1", ["name", "version"], registry=registry),
        models=set(),
    )


def count_flags(metrics: Metrics, flags: Flags) -> None:
    """Count what an answer lacked."""
    is_raised = {
        "unknown_user": flags["unknown_user"],
        "empty_history": flags["empty_history"],
        "missing": bool(flags["missing"]),
        "expired": bool(flags["expired"]),
        "store_down": flags["store_down"],
        "damaged": flags["damaged"],
    }
    for flag, raised in is_raised.items():
        if raised:
            metrics.flagged.labels(flag).inc()
    for signal in flags["missing"]:
        metrics.missing.labels(signal).inc()
    for signal in flags["expired"]:
        metrics.expired.labels(signal).inc()
