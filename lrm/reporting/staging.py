"""The report's section about the staging check: online against offline, and what the real server took."""

from __future__ import annotations

from typing import Any

from lrm.reporting.run_files import Json, RunFiles
from lrm.reporting.wording import UNKNOWN, count, is_number, number

KEYS = (
    "n_users",
    "n_skewed",
    "max_score_difference",
    "max_probability_difference",
    "latency_p50_ms",
    "latency_p99_ms",
    "champion_latency_p50_ms",
    "champion_latency_p99_ms",
    "bundle_bytes",
)
"""What `summary.json` holds of it."""


def section(files: RunFiles) -> Json:
    """What the page shows; empty where no staging check ended."""
    found = files.staging
    if not found:
        return {}
    if found.get("fault"):
        return {"lead": "The model could not be checked in staging.", "facts": [("Why", found["fault"])], "skew": []}
    facts = [
        ("Differences beyond the tolerance", count(found["n_skewed"])),
        ("Largest difference of a score", f"{found['max_score_difference']:.1e}"),
        ("Largest difference of a probability", f"{found['max_probability_difference']:.1e}"),
        ("Online values expired, so null", _expired(found["expired"], found.get("n_ever_known"))),
        ("Latency, median and 99 %", _beside(found, "latency_p50_ms", "latency_p99_ms", unit="ms")),
        ("Size of the model", _beside(found, "bundle_bytes", unit="MB", scale=1e-6)),
        ("Until the server was ready", f"{found['start_seconds']:.1f} s"),
        ("Champion", found.get("champion_fault")),
    ]
    return {
        "lead": f"The model in the real server: {count(found['n_requests'])} requests of {count(found['n_users'])} "
        f"users, online and offline, at a tolerance of {found['tolerance']:g}.",
        "facts": [(name, value) for name, value in facts if value],
        "skew": [row | {side: _value(row[side]) for side in ("online", "offline", "item_id")} for row in found["skew"]],
    }


def summary(files: RunFiles) -> Json | None:
    """What `summary.json` holds; None where no staging check ended."""
    return {key: files.staging[key] for key in KEYS} if files.staging else None


def _expired(by_signal: Json, n_ever_known: int | None) -> str:
    """A staging check of an earlier version did not count the values beside those that expired."""
    if not by_signal:
        return "none"
    n = sum(by_signal.values())
    of = f" of {count(n_ever_known)} ({n / n_ever_known:.1%})" if n_ever_known else ""
    return f"{count(n)}{of}: " + ", ".join(f"{name} {count(n)}" for name, n in by_signal.items())


def _beside(found: Json, *names: str, unit: str, scale: float = 1.0) -> str:
    """The challenger's values, and the champion's where there is one."""

    def said(prefix: str) -> str:
        values = [found[prefix + name] for name in names]
        return " and ".join(f"{value * scale:.1f}" for value in values) + f" {unit}" if None not in values else ""

    champion = said("champion_")
    return said("") + (f" (champion {champion})" if champion else "")


def _value(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return number(value) if is_number(value) and isinstance(value, float) else str(value)
