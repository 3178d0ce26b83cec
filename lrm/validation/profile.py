"""What a snapshot's signals look like: the numbers kept with a champion, for the next snapshot to be held against.

Rows of one user resemble each other, so a table of n rows says less about a distribution than n independent draws
would. `n_effective` is n over the design effect of that clustering (Rao and Scott 1981, first-order correction: the
mean over bins of the clustered variance of a bin's share over its multinomial variance).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from lrm.features.tables import Tables
from lrm.schema import DENSE, EMBEDDING, REQUEST_ID, USER_ID, Signal
from lrm.validation.columns import Placed, inhabited

N_QUANTILES = 10
"""Bins of a dense signal: deciles, fewer where values repeat."""
N_CATEGORIES = 50
"""Most frequent categories counted one by one; the rest are one bin."""
NULL, OTHER = "(null)", "(other)"
Indices = np.ndarray[Any, np.dtype[np.int64]]


def statistics(tables: Tables, placed: Placed) -> dict[str, Any]:
    """Statistics per table and signal, JSON-serialisable.

    Returns:
        {table: {"rows": n, "signals": {name: {"kind", "null_rate", "n_effective", ...}}}}: with `edges`, `counts` (one
        per bin, the last for nulls), `minimum`, `median`, `maximum`, `mean` and `std` of a dense signal; `categories`
        and `counts` (of each, then of all others, then of nulls) of a sparse signal or a bag; `mean` (dim,) and
        `variance` (summed over dimensions) of an embedding.
    """
    found: dict[str, Any] = {}
    for table in inhabited(tables):
        frame: pl.DataFrame = getattr(tables, table)
        unit = units(tables, table)
        signals = {signal.name: of_signal(frame[signal.name], unit, signal) for signal in placed.get(table, ())}
        found[table] = {"rows": frame.height, "signals": signals}
    return found


def units(tables: Tables, table: str) -> Indices:
    """(rows,) number of the unit that each row belongs to, from 0: its user, or in items and targets the row itself."""
    frame: pl.DataFrame = getattr(tables, table)
    if table == "candidates":
        asked = tables.requests.select(REQUEST_ID, USER_ID).unique(REQUEST_ID)
        frame = frame.select(REQUEST_ID).join(asked, on=REQUEST_ID, how="left", maintain_order="left")
    if USER_ID not in frame.columns:
        return np.arange(frame.height)
    rank = frame[USER_ID].rank("dense").fill_null(0).to_numpy()
    return rank.astype(np.int64)


def of_signal(values: pl.Series, unit: Indices, signal: Signal) -> dict[str, Any]:
    """Statistics of one signal, from its column and the `units` of the rows."""
    summary: dict[str, Any] = {"kind": signal.kind, "null_rate": values.null_count() / max(values.len(), 1)}
    if signal.kind == EMBEDDING:
        return summary | moments(values, unit, signal)
    if signal.kind == DENSE:
        finite = values.filter(values.is_finite()).cast(pl.Float64)
        summary |= _numbers(finite) | {"edges": _edges(finite)}
    else:
        summary["categories"] = _frequent(_members(values, unit)[0])
    counts, n_effective = histogram(values, unit, summary)
    return summary | {"counts": counts, "n_effective": n_effective}


def _numbers(finite: pl.Series) -> dict[str, Any]:
    return {
        "minimum": finite.min(),
        "median": finite.median(),
        "maximum": finite.max(),
        "mean": finite.mean(),
        "std": finite.std(ddof=0),
    }


def _edges(finite: pl.Series) -> list[float]:
    """Interior bin edges; a value equal to an edge lies in the bin below it."""
    if finite.is_empty():
        return []
    shares = np.linspace(0, 1, N_QUANTILES + 1)[1:-1]
    numbers = finite.to_numpy()
    edges = np.unique(np.quantile(numbers, shares, method="lower"))
    return [float(edge) for edge in edges if edge < numbers.max()]


def _members(values: pl.Series, unit: Indices) -> tuple[pl.Series, Indices]:
    """One row per category of a bag, an empty bag counting as null; a sparse signal's rows as they are."""
    if not isinstance(values.dtype, pl.List):
        return values, unit
    rows = pl.DataFrame({"unit": unit, "category": values}).explode("category")
    return rows["category"], rows["unit"].to_numpy()


def _frequent(categories: pl.Series) -> list[str]:
    ranked = categories.drop_nulls().alias("category").value_counts()
    return ranked.sort(["count", "category"], descending=[True, False])["category"].head(N_CATEGORIES).to_list()


def histogram(values: pl.Series, unit: Indices, bins: Mapping[str, Any]) -> tuple[list[int], float]:
    """Rows in each bin, and how many independent draws they are worth.

    Args:
        values: column of a dense or sparse signal or of a bag.
        unit: (rows,) as `units` gives it.
        bins: statistics of that signal, here or in an earlier snapshot: its `edges` or its `categories`.
    """
    if "edges" in bins:
        edges = np.asarray(bins["edges"])
        numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        index = np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="left"))
        return _counted(index, unit, len(edges) + 2)
    order = {category: index for index, category in enumerate(bins["categories"])}
    members, unit = _members(values, unit)
    listed = members.replace_strict(order, default=len(order), return_dtype=pl.Int64)
    index = np.where(members.is_null().to_numpy(), len(order) + 1, listed.to_numpy())
    return _counted(index, unit, len(order) + 2)


def _counted(index: Indices, unit: Indices, n_bins: int) -> tuple[list[int], float]:
    # In order of the cells, so that sums of floats come out the same on every run.
    cells = pl.Series("cell", unit * n_bins + index).value_counts().sort("cell")
    cell, in_cell = cells["cell"].to_numpy(), cells["count"].to_numpy().astype(np.float64)
    unit_of_cell, bin_of_cell = np.divmod(cell, n_bins)
    sizes = np.bincount(unit_of_cell, weights=in_cell)
    counts = np.bincount(bin_of_cell, weights=in_cell, minlength=n_bins)
    n, n_units, some = float(counts.sum()), int(np.count_nonzero(sizes)), counts > 0
    if some.sum() < 2 or n_units < 2:
        return counts.astype(np.int64).tolist(), float(max(n_units, 1))
    share = counts / n
    # Sum over units of (count in the bin - size of the unit * share of the bin) squared, expanded.
    squares = np.bincount(bin_of_cell, weights=in_cell**2, minlength=n_bins)
    cross = np.bincount(bin_of_cell, weights=in_cell * sizes[unit_of_cell], minlength=n_bins)
    spread = squares - 2 * share * cross + share**2 * (sizes**2).sum()
    variance = n_units / (n_units - 1) * spread / n**2
    design_effect = float((variance[some] / share[some]).sum()) * n / (np.count_nonzero(some) - 1)
    return counts.astype(np.int64).tolist(), n / max(design_effect, 1.0)


def moments(values: pl.Series, unit: Indices, signal: Signal) -> dict[str, Any]:
    """Mean vector, total variance and `n_effective` of an embedding's well-formed rows."""
    dim = signal.dim or 0
    finite = values.list.eval(pl.element().is_finite().fill_null(False)).list.all()
    sound = ((values.list.len() == dim) & finite).fill_null(False)
    vectors = values.filter(sound).list.to_array(dim).to_numpy()
    if not len(vectors):
        return {"mean": [0.0] * dim, "variance": 0.0, "n_effective": 1.0}
    mean = vectors.mean(axis=0, dtype=np.float64)
    vectors = vectors - mean.astype(np.float32)
    variance = float(np.einsum("nd,nd->", vectors, vectors, dtype=np.float64)) / len(vectors)
    of_row = unit[sound.to_numpy()]
    order = np.argsort(of_row, kind="stable")
    starts = np.flatnonzero(np.diff(of_row[order], prepend=-1))
    sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
    between = float((sums**2).sum())
    design_effect = between / (len(vectors) * variance) if variance else 1.0
    return {"mean": mean.tolist(), "variance": variance, "n_effective": len(vectors) / max(design_effect, 1.0)}


def rates(counts: Sequence[int]) -> list[float]:
    """Counts as shares of their sum."""
    total = max(sum(counts), 1)
    return [count / total for count in counts]


def bin_labels(summary: Mapping[str, Any]) -> list[str]:
    """A name for each bin of `counts`, for a person."""
    if "categories" in summary:
        return [*summary["categories"], OTHER, NULL]
    edges = [f"{edge:.4g}" for edge in summary["edges"]]
    if not edges:
        return ["any", NULL]
    inner = [f"{low} to {high}" for low, high in pairwise(edges)]
    return [f"up to {edges[0]}", *inner, f"above {edges[-1]}", NULL]
