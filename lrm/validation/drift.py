"""Has the world moved? The current snapshot's signals against the statistics kept with the champion.

*Measure.* Dense, sparse and bag signals: the Jensen-Shannon distance (square root of the divergence in bits: a metric,
0 same, 1 disjoint, finite where a bin is empty, which the population stability index is not) between the shares of the
champion's own bins: its deciles, or its 50 most frequent categories and one for all others; nulls are a bin. The
population stability index (PSI) stands beside it because people know it. Embeddings: the distance between the two mean
vectors, over the champion's total standard deviation.

*Threshold.* Two samples of one distribution differ too. For them 8 ln2 JSD / (1/n + 1/m) is chi-squared with bins - 1
degrees of freedom, with n and m the effective sample sizes. A signal has drifted where its squared distance exceeds
the squared distance that matters plus the 99.9 % quantile of that noise.

*Limit.* Both sides are whole snapshots, so a change in the newest days alone is diluted by all that came before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Any

import numpy as np
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import EMBEDDING, Signal
from lrm.validation.columns import Placed, inhabited
from lrm.validation.profile import Indices, bin_labels, histogram, moments, rates, units

MATERIAL_DISTANCE = 0.13
"""Jensen-Shannon distance worth a warning: about where PSI reaches 0.1 (PSI is near 8 ln2 JSD for small shifts)."""
MATERIAL_SHIFT = 0.1
"""Mean shift of an embedding worth a warning, in total standard deviations."""
Z_999 = 3.0902
"""Standard normal quantile at 0.999."""
JENSEN_SHANNON, MEAN_SHIFT = "Jensen-Shannon distance", "mean shift"


def measure_drift(tables: Tables, placed: Placed, reference: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per table and signal that the reference knows under the same kind.

    Returns:
        Rows of `validation.json`'s drift list: `table`, `signal`, `distance`, `measure`, `threshold`, `drifted`, and
        for binned signals `psi`, `bins` (labels), `before` and `now` (shares of the bins); the largest excess first.
    """
    rows = []
    for table in inhabited(tables):
        known, unit = reference.get(table, {}).get("signals", {}), units(tables, table)
        for signal in placed.get(table, ()):
            before = known.get(signal.name)
            if before is None or before["kind"] != signal.kind:
                continue
            values = getattr(tables, table)[signal.name]
            measured = (_vectors if signal.kind == EMBEDDING else _bins)(values, unit, signal, before)
            if measured:
                rows.append({"table": table, "signal": signal.name} | measured)
    return sorted(rows, key=lambda row: row["threshold"] - row["distance"])


def _bins(values: pl.Series, unit: Indices, _: Signal, before: Mapping[str, Any]) -> dict[str, Any]:
    counts, n_effective = histogram(values, unit, before)
    distance = jensen_shannon(before["counts"], counts)
    n_bins = sum(1 for pair in zip(before["counts"], counts, strict=True) if any(pair))
    noise = _chi_squared_999(n_bins - 1) * (1 / before["n_effective"] + 1 / n_effective) / (8 * log(2))
    threshold = sqrt(MATERIAL_DISTANCE**2 + noise)
    return {
        "distance": distance,
        "measure": JENSEN_SHANNON,
        "threshold": threshold,
        "drifted": distance > threshold,
        "psi": population_stability_index(before["counts"], counts),
        "bins": bin_labels(before),
        "before": rates(before["counts"]),
        "now": rates(counts),
    }


def _vectors(values: pl.Series, unit: Indices, signal: Signal, before: Mapping[str, Any]) -> dict[str, Any] | None:
    if len(before["mean"]) != signal.dim:
        return None
    now = moments(values, unit, signal)
    shift = float(np.linalg.norm(np.subtract(now["mean"], before["mean"])))
    distance = shift / sqrt(before["variance"] or 1.0)
    # The most that noise can do: all of the variance along one direction.
    noise = _chi_squared_999(1) * (1 / before["n_effective"] + 1 / now["n_effective"])
    threshold = sqrt(MATERIAL_SHIFT**2 + noise)
    return {"distance": distance, "measure": MEAN_SHIFT, "threshold": threshold, "drifted": distance > threshold}


def jensen_shannon(before: Sequence[int], now: Sequence[int]) -> float:
    """Square root of the Jensen-Shannon divergence in bits between two histograms, 0 to 1."""
    p, q = np.asarray(rates(before)), np.asarray(rates(now))
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return sqrt(min(max(divergence, 0.0), 1.0))


def _relative_entropy(p: np.ndarray[Any, Any], q: np.ndarray[Any, Any]) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())


def population_stability_index(before: Sequence[int], now: Sequence[int]) -> float:
    """Sum over bins of (p - q) ln(p / q), half a row added to every bin so that an empty one stays finite."""
    p, q = np.asarray(before) + 0.5, np.asarray(now) + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def _chi_squared_999(freedom: int) -> float:
    """99.9 % quantile of chi-squared, by Wilson and Hilferty's cube (within 2 % from one degree of freedom on)."""
    if freedom < 1:
        return 0.0
    return float(freedom * (1 - 2 / (9 * freedom) + Z_999 * sqrt(2 / (9 * freedom))) ** 3)
