"""What an operator watches, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class Meters(NamedTuple):
    """The counters of one server."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    in_flight: Gauge
    batch_size: Histogram
    turned_away: Counter
    cold: Counter
    flagged: Counter
    missing: Counter
    expired: Counter
    events: Counter
    unknown_items: Counter
    model: Gauge


def new_meters(gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> Meters:
    """Counters at zero, and gauges that are read when asked for: what each says, and how it is read."""
    registry = CollectorRegistry()
    for name, (says, read) in gauges.items():
        Gauge(name, says, registry=registry).set_function(read)

    def counter(name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=registry)

    return Meters(
        registry=registry,
        requests=counter("lrm_requests_total", "Requests", "route", "status"),
        seconds=Histogram("lrm_request_seconds", "Latency", ["route"], buckets=SECONDS, registry=registry),
        in_flight=Gauge("lrm_in_flight", "Requests under way", registry=registry),
        batch_size=Histogram(
            "lrm_batch_size", "Questions answered together", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        ),
        turned_away=counter("lrm_turned_away_total", "Requests turned away, by reason", "reason"),
        cold=counter("lrm_cold_total", "Answers without any known history"),
        flagged=counter("lrm_flagged_total", "Answers without something, by what", "flag"),
        missing=counter("lrm_missing_total", "Answers without a value of the signal", "signal"),
        expired=counter("lrm_expired_total", "Answers whose value of the signal had expired", "signal"),
        events=counter("lrm_events_total", "Events taken, new or known before", "known"),
        unknown_items=counter(
            "lrm_unknown_items_total", "Items asked for or sent that are not in the catalogue, once a request", "of"
        ),
        model=Gauge("lrm_model_info", "The release in service is 1", ["name", "version"], registry=registry),
    )


def count_flags(meters: Meters, flags: Mapping[str, Any]) -> None:
    """Count what an answer lacked."""
    if flags["empty_history"]:
        meters.cold.inc()
    for flag in ("unknown_user", "missing", "expired", "store_down", "damaged"):
        if flags[flag]:
            meters.flagged.labels(flag).inc()
    for signal in flags["missing"]:
        meters.missing.labels(signal).inc()
    for signal in flags["expired"]:
        meters.expired.labels(signal).inc()
