"""What the token makers know of the training data: categories, quantile buckets, scales, items.

Fitted on the training split alone, on all tables that hold a signal. The stated rules: a category seen in fewer than
`min_category_count` training rows of each table, or never, is *out of vocabulary* (index 1), which differs from
*missing* (index 0) and from *masked* (the last index, used by pretraining). A dense value falls into one of `n_buckets`
quantile buckets, and also enters as the number sign(x) log(1 + |x|), standardised: heavy tails cost neither resolution
nor stability. An item with fewer than `min_item_count` training events shares the identity row 0 and is told apart by
its content alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lrm.config import TokensConfig
from lrm.errors import SchemaError
from lrm.features.tables import Tables
from lrm.schema import (
    BAG,
    DENSE,
    HISTORY,
    ITEM,
    ITEM_ID,
    QUERY,
    REQUEST,
    REQUEST_ID,
    SPARSE,
    SPLIT,
    TRAIN,
    Signal,
    for_maker,
)

GAP_HOURS = Signal(
    name="gap_hours",
    kind=DENSE,
    makers=(HISTORY, QUERY),
    entity=REQUEST,
    view="derived",
    description="Hours since the user's previous event; derived, so that order is not the only notion of time.",
)
MISSING, UNKNOWN, FIRST_CATEGORY = 0, 1, 2
UNTRAINED_ITEM = 0
MAX_BAG_WIDTH = 16
VALUE_LIMIT = 5.0
"""Standard scores are cut here at the latest, so that one wild value cannot move a model far."""
FIT_ROWS = 200_000
"""Quantiles are read off at most this many evenly spaced training rows."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Everything fitted before the first gradient step.

    `item_ids` (V,) is the catalogue at training, sorted; `item_counts` (V,) its training events.
    """

    item_ids: np.ndarray
    item_counts: np.ndarray
    min_item_count: int
    n_buckets: int
    categories: dict[str, list[str]]
    edges: dict[str, list[float]]
    scales: dict[str, tuple[float, float]]
    """Mean and deviation of a dense signal's signed logarithm."""
    limits: dict[str, tuple[float, float]]
    """Least and greatest standard score of a dense signal's training rows: what lies beyond counts as the nearest of
    them, since what a model makes of a number that it never saw is chance."""
    bag_widths: dict[str, int]

    @property
    def trained_items(self) -> np.ndarray:
        """Item ids that own an identity row, in the order of rows 1..n."""
        return self.item_ids[self.item_counts >= self.min_item_count]

    @property
    def n_identities(self) -> int:
        """Rows of the identity table: the shared row 0, then one per trained item."""
        return 1 + len(self.trained_items)

    def identity(self, item_ids: np.ndarray) -> np.ndarray:
        """Rows of the identity table, int64, for item ids of any origin."""
        return rows_of(item_ids, self.trained_items) + 1

    def n_categories(self, signal: Signal) -> int:
        """Embedding rows of a sparse or bag signal: missing, unknown, each category, masked."""
        return FIRST_CATEGORY + len(self.categories[signal.name]) + 1


def rows_of(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Position of each wanted id in the sorted `known` ids, -1 where it is not there."""
    if not len(known):
        return np.full(len(wanted), -1, dtype=np.int64)
    position = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[position] == wanted, position, -1).astype(np.int64)


def content_signals(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """The signals that say what an item is: item-entity signals that the history maker reads."""
    return tuple(signal for signal in signals if HISTORY in signal.makers and signal.entity == ITEM)


def history_signals(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """What the history maker reads: the declared signals and the time since the user's previous event."""
    return (*for_maker(signals, HISTORY), GAP_HOURS)


def query_signals(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """What the query maker reads: the declared signals and the time since the user's last event."""
    return (*for_maker(signals, QUERY), GAP_HOURS)


def fit(tables: Tables, signals: Iterable[Signal], config: TokensConfig) -> Vocabulary:
    """Fit a vocabulary on the training split.

    Raises:
        SchemaError: a declared signal is in no table.
    """
    requests = tables.requests.filter(pl.col(SPLIT) == TRAIN)
    events = tables.events.filter(pl.col(SPLIT) == TRAIN)
    candidates = tables.candidates.join(requests.select(REQUEST_ID), on=REQUEST_ID, how="semi")
    categories: dict[str, list[str]] = {}
    edges: dict[str, list[float]] = {}
    scales: dict[str, tuple[float, float]] = {}
    limits: dict[str, tuple[float, float]] = {}
    bag_widths: dict[str, int] = {}
    for signal in signals:
        holders = [frame for frame in (events, requests, candidates) if signal.name in frame.columns]
        if not holders:
            raise SchemaError(f"signal {signal.name!r} of view {signal.view!r} is in no table of the examples")
        columns = [frame[signal.name] for frame in holders]
        if signal.kind == DENSE:
            values = _finite(pl.concat(columns))
            edges[signal.name] = _fit_edges(values, config.n_buckets)
            scales[signal.name], limits[signal.name] = _fit_scale(values)
        elif signal.kind in (SPARSE, BAG):
            categories[signal.name] = _fit_categories(columns, config.min_category_count)
        if signal.kind == BAG:
            longest = pl.concat(columns).list.len().fill_null(0).to_numpy().max(initial=1)
            bag_widths[signal.name] = int(min(longest, MAX_BAG_WIDTH))
    counts = events[ITEM_ID].value_counts()
    catalogue = tables.items.select(ITEM_ID).join(counts, on=ITEM_ID, how="left").sort(ITEM_ID)
    return Vocabulary(
        item_ids=catalogue[ITEM_ID].to_numpy(),
        item_counts=catalogue["count"].fill_null(0).to_numpy().astype(np.int64),
        min_item_count=config.min_item_count,
        n_buckets=config.n_buckets,
        categories=categories,
        edges=edges,
        scales=scales,
        limits=limits,
        bag_widths=bag_widths,
    )


def _finite(column: pl.Series) -> np.ndarray:
    values = column.drop_nulls().to_numpy().astype(np.float64)
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _fit_edges(values: np.ndarray, n_buckets: int) -> list[float]:
    if not len(values):
        return []
    values = _spaced(values)
    distinct = np.unique(values)
    if len(distinct) <= n_buckets:
        edges = (distinct[:-1] + distinct[1:]) / 2
    else:
        edges = np.unique(np.quantile(values, np.arange(1, n_buckets) / n_buckets))
    found: list[float] = edges.tolist()
    return found


def _fit_scale(values: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Mean and deviation of the signed logarithm, and the standard scores of the least and the greatest value."""
    if not len(values):
        return (0.0, 1.0), (-VALUE_LIMIT, VALUE_LIMIT)
    logs = signed_log(_spaced(values))
    mean, deviation = float(logs.mean()), float(max(logs.std(), 1e-6))
    ends = (signed_log(np.array([values.min(), values.max()])) - mean) / deviation
    low, high = ends.clip(-VALUE_LIMIT, VALUE_LIMIT).tolist()
    return (mean, deviation), (low, high)


def _spaced(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // FIT_ROWS)]


def _fit_categories(columns: Iterable[pl.Series], min_count: int) -> list[str]:
    """Those that one of the columns holds often enough; summed, an event that is also a candidate would count twice."""
    found: set[str] = set()
    for column in columns:
        is_bag = isinstance(column.dtype, pl.List)
        values = column.list.explode(keep_nulls=False, empty_as_null=False) if is_bag else column
        counts = values.drop_nulls().cast(pl.String).rename("category").value_counts()
        found |= set(counts.filter(pl.col("count") >= min_count)["category"])
    return sorted(found)


def signed_log(values: np.ndarray) -> np.ndarray:
    """sign(x) log(1 + |x|)."""
    logs: np.ndarray = np.sign(values) * np.log1p(np.abs(values))
    return logs


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write as JSON."""
    fields = {name: getattr(vocabulary, name) for name in Vocabulary.__dataclass_fields__}
    fields |= {"item_ids": vocabulary.item_ids.tolist(), "item_counts": vocabulary.item_counts.tolist()}
    path.write_text(json.dumps(fields))


def load(path: Path) -> Vocabulary:
    """Read what `save` wrote."""
    fields = json.loads(path.read_text())
    fields["item_ids"] = np.array(fields["item_ids"])
    fields["item_counts"] = np.array(fields["item_counts"], dtype=np.int64)
    fields.setdefault("limits", dict.fromkeys(fields["scales"], (-VALUE_LIMIT, VALUE_LIMIT)))  # as it was before them
    for numbers in ("scales", "limits"):
        fields[numbers] = {name: tuple(pair) for name, pair in fields[numbers].items()}
    return Vocabulary(**fields)
