"""Parts of the test data that deserve their own number: kinds of users, of items, of histories, declared categories."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lrm.evaluation.metrics.metrics import Ints
from lrm.evaluation.predictions import Histories
from lrm.features.tables import Tables
from lrm.schema import QUERY, SPARSE, SPLIT, TEST, TRAIN, USER_ID, Signal, for_maker

MAX_CATEGORIES = 12
"""Categories of a sparse query signal above which it gives no slices."""
MAX_SLICES = 5
"""Slices of one signal: its most frequent categories."""

Mask = NDArray[np.bool_]


class Slice(NamedTuple):
    """Some of the requests, or some of the items; the other mask is None, which means all."""

    name: str
    requests: Mask | None
    """One entry a row of the table of requests."""
    items: Mask | None
    """One entry a row of the table of items."""

    def rows(self, request_id: Ints, item: Ints) -> Mask:
        """Which rows, each of a request and an item, are in the slice."""
        if self.requests is not None:
            return self.requests[request_id]
        assert self.items is not None
        return self.items[item]


def slices(tables: Tables, signals: Iterable[Signal], seen: Histories) -> list[Slice]:
    """Every slice that holds some but not all of the test requests, or of the items."""
    test = (tables.requests[SPLIT] == TEST).to_numpy()
    by_request = [*_by_novelty(tables), *_by_history(seen, test), *_by_category(tables, signals, test)]
    found = [Slice(name, mask, None) for name, mask in by_request if mask[test].any() and not mask[test].all()]
    return found + [Slice(name, None, mask) for name, mask in _by_popularity(tables, seen) if mask.any()]


def _by_novelty(tables: Tables) -> list[tuple[str, Mask]]:
    trained = tables.events.filter(pl.col(SPLIT) == TRAIN)[USER_ID].unique()
    returning = tables.requests[USER_ID].is_in(trained.implode()).to_numpy()
    return [("new users", ~returning), ("returning users", returning)]


def _by_history(seen: Histories, test: Mask) -> list[tuple[str, Mask]]:
    length = seen.stop - seen.start
    if not test.any():
        return []
    low, high = (int(np.floor(edge)) for edge in np.quantile(length[test], [1 / 3, 2 / 3]))
    if low == high:
        return []
    middle = f"{high}" if high == low + 1 else f"{low + 1} to {high}"
    return [
        (f"history of at most {low} events", length <= low),
        (f"history of {middle} events", (length > low) & (length <= high)),
        (f"history of more than {high} events", length > high),
    ]


def _by_category(tables: Tables, signals: Iterable[Signal], test: Mask) -> list[tuple[str, Mask]]:
    found = []
    for signal in for_maker(signals, QUERY):
        if signal.kind != SPARSE:
            continue
        column = tables.requests[signal.name]
        counts = column.filter(pl.Series(test)).drop_nulls().alias("category").value_counts()
        n_categories = len(signal.categories) if signal.categories is not None else counts.height
        if n_categories <= MAX_CATEGORIES:
            top = counts.sort(["count", "category"], descending=[True, False]).head(MAX_SLICES)["category"]
            found += [(f"{signal.name} = {value}", (column == value).fill_null(False).to_numpy()) for value in top]
    return found


def _by_popularity(tables: Tables, seen: Histories) -> list[tuple[str, Mask]]:
    head = head_items(tables, seen)
    return [("head items", head), ("tail items", ~head)]


def head_items(tables: Tables, seen: Histories) -> Mask:
    """(V,) the fewest items that hold half of the training events."""
    trained = (tables.events[SPLIT] == TRAIN).to_numpy()
    counts = np.bincount(seen.item[trained], minlength=tables.items.height)
    order = np.argsort(-counts, kind="stable")
    n_head = int(np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)) + 1
    head = np.zeros(counts.size, dtype=bool)
    head[order[:n_head]] = True
    return head
