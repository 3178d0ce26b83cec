"""Gradient-boosted trees on the query and candidate signals: the ranking baseline.

It reads exactly the signals that the model reads for a candidate, apart from the history and the item's identity.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.features.tables import Tables
from lrm.schema import (
    BAG,
    CANDIDATE,
    DENSE,
    EMBEDDING,
    LABEL,
    QUERY,
    REQUEST_ID,
    SPARSE,
    SPLIT,
    TRAIN,
    VALIDATION,
    Signal,
)

MAX_CATEGORIES = 60
"""Categories of a sparse signal told apart: the most frequent of the training rows; the rest count as missing.

More of them cost time and, on repurchases, accuracy.
"""
MAX_BAG_COLUMNS = 16
"""Categories of a bag that get a column of their own, beside the size of the bag."""
LEARNING_RATE, FEATURE_SHARE, PATIENCE = 0.05, 0.3, 30
"""Shrinkage, share of the features that a tree may split on, rounds without a better validation log loss to stop.

A baseline must not be weak: of rates from .03 to .15 and shares of .3 and .5, these are within .001 AUC of the best on
every built-in ranking data set; a lower rate takes longer.
"""


class Column(NamedTuple):
    """One source of tree features: a signal of the requests (query) or of the candidates."""

    signal: Signal
    is_query: bool
    categories: pl.Series | None
    """Sparse and bag: the categories told apart."""

    @property
    def width(self) -> int:
        """Tree features it gives."""
        if self.signal.kind == EMBEDDING:
            return self.signal.dim or 1
        return 1 + self.categories.len() if self.signal.kind == BAG and self.categories is not None else 1


class Trees:
    """A LightGBM classifier of the label, stopped early on the validation rows, the same for the same seed.

    It uses all cores, or as many as `OMP_NUM_THREADS` says.

    Raises:
        LightGBMError: the library refuses the data.
    """

    def __init__(self, tables: Tables, signals: tuple[Signal, ...], *, n_trees: int, seed: int) -> None:
        import lightgbm

        self._tables = tables
        requests, self._columns = tables.requests, _columns(tables, signals)
        train, validation = (
            tables.candidates.filter(
                pl.col(REQUEST_ID).is_in(requests.filter(pl.col(SPLIT) == split)[REQUEST_ID].implode())
            )
            for split in (TRAIN, VALIDATION)
        )
        first = np.cumsum([0, *(column.width for column in self._columns)])
        sparse = [int(first[at]) for at, column in enumerate(self._columns) if column.signal.kind == SPARSE]
        self.n_features = int(first[-1])
        parameters: dict[str, Any] = {
            "objective": "binary",
            "learning_rate": LEARNING_RATE,
            "num_leaves": 31,
            "min_data_in_leaf": min(100, max(1, train.height // 20)),
            "max_bin": 63,
            "feature_fraction": FEATURE_SHARE,
            "deterministic": True,
            "force_col_wise": True,
            "seed": seed,
            "verbosity": -1,
        }
        data = lightgbm.Dataset(
            self._matrix(train), train[LABEL].to_numpy(), categorical_feature=sparse, params=parameters
        )
        held = [data.create_valid(self._matrix(validation), validation[LABEL].to_numpy())] if validation.height else []
        stopping: list[Any] = [lightgbm.early_stopping(PATIENCE, verbose=False)] if held else []
        self._booster = lightgbm.train(parameters, data, num_boost_round=n_trees, valid_sets=held, callbacks=stopping)
        self.n_rounds = int(self._booster.best_iteration or self._booster.current_iteration())

    def candidate_logits(self, request_ids: Ints, /) -> Floats:
        """(rows,) log odds of a positive label."""
        rows = self._tables.candidates.filter(pl.col(REQUEST_ID).is_in(pl.Series(request_ids).implode()))
        return np.asarray(self._booster.predict(self._matrix(rows), raw_score=True))

    def _matrix(self, rows: pl.DataFrame) -> Floats:
        """(rows, features) float32; missing values and unknown categories are NaN."""
        request = rows[REQUEST_ID].to_numpy()
        matrix = np.empty((rows.height, self.n_features), dtype=np.float32)
        start = 0
        for column in self._columns:
            block = matrix[:, start : start + column.width]
            table = self._tables.requests if column.is_query else rows
            features = _features(table[column.signal.name], column)
            block[:] = features[request] if column.is_query else features
            start += column.width
        return matrix


def _columns(tables: Tables, signals: tuple[Signal, ...]) -> list[Column]:
    """The query signals, then the candidate signals, with categories from the training requests and their rows."""
    requests = tables.requests.filter(pl.col(SPLIT) == TRAIN)
    rows = tables.candidates.filter(pl.col(REQUEST_ID).is_in(requests[REQUEST_ID].implode()))
    found = []
    for maker, table in ((QUERY, requests), (CANDIDATE, rows)):
        for signal in signals:
            if maker in signal.makers:
                found.append(Column(signal, maker == QUERY, _categories(table[signal.name], signal)))
    return found


def _categories(values: pl.Series, signal: Signal) -> pl.Series | None:
    if signal.kind not in (SPARSE, BAG):
        return None
    flat = values.explode(empty_as_null=True) if signal.kind == BAG else values
    counts = flat.drop_nulls().alias("category").value_counts().sort(["count", "category"], descending=[True, False])
    return counts["category"].head(MAX_BAG_COLUMNS if signal.kind == BAG else MAX_CATEGORIES)


def _features(values: pl.Series, column: Column) -> Floats:
    """(rows, width) float32 of one signal."""
    signal, categories = column.signal, column.categories
    if signal.kind == DENSE:
        return values.cast(pl.Float32).fill_null(float("nan")).to_numpy()[:, None]
    if signal.kind == EMBEDDING:
        missing = pl.lit([float("nan")] * column.width, dtype=pl.List(pl.Float32))
        filled = values.to_frame().select(pl.col(signal.name).cast(pl.List(pl.Float32)).fill_null(missing)).to_series()
        return filled.list.to_array(column.width).to_numpy()
    assert categories is not None
    if signal.kind == SPARSE:
        codes = values.cast(pl.Enum(categories), strict=False).to_physical()
        return codes.cast(pl.Float32).fill_null(float("nan")).to_numpy()[:, None]
    held = [values.list.contains(category) for category in categories]
    parts = [part.cast(pl.Float32).fill_null(float("nan")).to_numpy() for part in (values.list.len(), *held)]
    return np.stack(parts, axis=1)
