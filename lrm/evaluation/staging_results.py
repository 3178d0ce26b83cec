"""What a staging check on the real server found: the folder `staging` of the step check_in_staging."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from lrm.errors import DataError

STAGING = "staging.json"


class StagingResults(NamedTuple):
    """Skew between the offline and the online path, and what serving costs."""

    n_users: int
    n_requests: int
    tolerance: float
    max_score_difference: float
    max_probability_difference: float
    n_skewed: int
    skewed_signals: tuple[str, ...]
    """Named by the differences, the most frequent first."""
    n_expired: int
    """Online values past their time-to-live, which became null."""
    latency_p50_ms: float
    latency_p99_ms: float
    champion_latency_p50_ms: float | None
    champion_latency_p99_ms: float | None
    """Both measured in turn with the challenger's; None without a champion."""
    bundle_bytes: float
    champion_bundle_bytes: float | None
    fault: str
    """Why the model could not be served; "" where it could."""
    champion_fault: str = ""
    """Why the champion could not be served beside it."""


def read(folder: Path | None) -> StagingResults | None:
    """What was found; None where nothing was checked.

    Raises:
        DataError: `staging.json` is missing or no JSON, lacks a field, or has one that is not a number.
    """
    if folder is None:
        return None
    path = folder / STAGING
    if not path.is_file():
        raise DataError(f"{path} is missing; the step check_in_staging writes it, also where nothing could be checked")
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); run the step check_in_staging again") from error
    found = {
        name: _number(told, name, path)
        for name in StagingResults._fields
        if name not in ("skewed_signals", "n_expired", "fault", "champion_fault")
    }
    named = Counter(signal for row in told.get("skew", []) for signal in row["signals"])
    names = tuple(name for name, _ in sorted(named.items(), key=lambda one: (-one[1], one[0])))
    return StagingResults(
        **found,
        skewed_signals=names,
        n_expired=sum(told.get("expired", {}).values()),
        fault=told.get("fault") or "",
        champion_fault=told.get("champion_fault") or "",
    )


def as_json(found: StagingResults | None) -> dict[str, Any] | None:
    """What `evaluation.json` holds of it: null where a number is not finite, which JSON cannot say."""
    if found is None:
        return None
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in found._asdict().items()
    }


def _number(told: dict[str, Any], name: str, path: Path) -> Any:
    """A field; null only for what a staging check without a champion cannot measure. Not finite is left to the gate."""
    value = told.get(name)
    if value is None and name in told and name.startswith("champion_"):
        return None
    if value is None and name in told and not told.get("n_requests"):
        return math.nan  # nothing was asked, so nothing was measured
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{path}: {name} must be a number, got {value!r}; run the step check_in_staging again")
    return value
