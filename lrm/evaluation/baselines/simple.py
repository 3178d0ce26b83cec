"""Simple models that anything larger must beat, fitted on the training events and rows alone.

They answer the same questions as the model, with the history that is visible at each test request. A *step* of a
history is a distinct instant, so that a whole basket is one step.

Axes: U users, V items of the catalogue, N the most frequent of them, R requests, E events, S steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lrm.errors import DataError
from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.evaluation.predictions import Histories, item_rows
from lrm.features.tables import Tables
from lrm.schema import EVENT_TIME, ITEM_ID, LABEL, REQUEST_ID, SPLIT, TRAIN, USER_ID

HALF_LIFE = 1 / 8
"""Popularity halves over this share of the training span: recent events count more."""
PRIOR_ROWS = 20.0
"""Rows of the average item that smooth an item's own share of positive labels."""
DECAY, OWN_DECAY = 0.9, 0.98
"""Weight of a step over that of the next one in a history: for what others chose along with it, for its own repeats."""
WINDOW = 3
"""Steps that the Markov chain looks back."""


class Popular:
    """Most popular of late; candidates by the share of positive labels that their item had. The same for all users."""

    def __init__(self, tables: Tables, seen: Histories) -> None:
        self.item_ids: NDArray[np.generic] = tables.items[ITEM_ID].to_numpy()
        self._scores = recent_counts(tables, seen)
        self._candidates = tables.candidates.select(REQUEST_ID, ITEM_ID)
        self._tables = tables
        self._logits = _label_logits(tables)

    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) decayed counts of the training events."""
        return np.broadcast_to(self._scores, (request_ids.size, self._scores.size))

    def candidate_logits(self, request_ids: Ints, /) -> Floats:
        """(rows,) log odds of a positive label of the row's item, smoothed towards the average."""
        asked = self._candidates.filter(pl.col(REQUEST_ID).is_in(pl.Series(request_ids).implode()))
        return self._logits[item_rows(self._tables, asked[ITEM_ID])]


class OwnHistory:
    """What the user chose most of late, repeats fading by `OWN_DECAY` a step; then all else in order of popularity."""

    def __init__(self, tables: Tables, seen: Histories) -> None:
        self.item_ids: NDArray[np.generic] = tables.items[ITEM_ID].to_numpy()
        self._seen = seen
        self._step = _steps(tables)
        popularity = recent_counts(tables, seen)
        self._behind = popularity / max(popularity.max(), 1e-9) * 1e-6

    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) faded counts of the visible events."""
        scores: Floats = np.tile(self._behind, (request_ids.size, 1))
        for row, request_id in zip(scores, request_ids, strict=True):
            item, age = _aged(self._seen, self._step, request_id)
            np.add.at(row, item, (OWN_DECAY**age).astype(np.float32))
        return scores


class EaseMarkov:
    """EASE (Steck 2019) and a Markov chain on histories that fade by `DECAY` a step: the sum of their z-scores.

    EASE is fitted on which user had which of the `n_items` most frequent items; the chain counts which item came at
    most `WINDOW` steps after which. All other items follow behind, in order of popularity.
    """

    def __init__(self, tables: Tables, seen: Histories, *, n_items: int = 4000, ridge: float = 300.0) -> None:
        self.item_ids: NDArray[np.generic] = tables.items[ITEM_ID].to_numpy()
        self._seen = seen
        self._step = _steps(tables)
        popularity = recent_counts(tables, seen)
        self._behind = popularity / max(popularity.max(), 1e-9) - 1
        trained = (tables.events[SPLIT] == TRAIN).to_numpy()
        counts = np.bincount(seen.item[trained], minlength=tables.items.height)
        order = np.argsort(-counts, kind="stable")[:n_items]
        self._top = np.sort(order[counts[order] > 0])
        self._position = np.full(tables.items.height, -1)
        self._position[self._top] = np.arange(self._top.size)
        user = tables.events[USER_ID].rank("dense").to_numpy().astype(np.int64) - 1
        item = np.where(trained, self._position[seen.item], -1)
        self._weights = _ease(_held(user, item, n_items=self._top.size), ridge=ridge)
        held = _held(self._step, item, n_items=self._top.size)
        self._chain = _transitions(held, user[np.unique(self._step, return_index=True)[1]])

    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) sums of two z-scores for the most frequent items, less than any of them for the rest."""
        faded, last = self._histories(request_ids)
        fitted = _standard(faded @ self._weights) + _standard((last @ self._chain).toarray())
        scores: Floats = fitted.min(axis=1, initial=0.0, keepdims=True) - 1 + self._behind[None, :]
        scores[:, self._top] = fitted
        return scores

    def _histories(self, request_ids: Ints) -> tuple[Any, Any]:
        """Sparse (R, N): all visible events faded by age, and those of the last `WINDOW` steps weighted 1/age."""
        from scipy import sparse

        items, ages = zip(*(_aged(self._seen, self._step, request_id) for request_id in request_ids), strict=True)
        row = np.repeat(np.arange(len(items)), [known.size for known in items])
        column, age = self._position[np.concatenate(items)], np.concatenate(ages)
        held, shape = column >= 0, (len(items), self._top.size)
        faded = sparse.csr_matrix(((DECAY ** age[held]).astype(np.float32), (row[held], column[held])), shape=shape)
        near = held & (age < WINDOW)
        weight = (1 / (1 + age[near])).astype(np.float32)
        return faded, sparse.csr_matrix((weight, (row[near], column[near])), shape=shape)


def _steps(tables: Tables) -> Ints:
    """(E,) the step of each event, numbered over all users in the order of the table."""
    user, at = (tables.events[name] for name in (USER_ID, EVENT_TIME))
    is_new = ((user != user.shift()) | (at != at.shift())).fill_null(True)
    return is_new.cast(pl.Int64).cum_sum().to_numpy() - 1


def _aged(seen: Histories, step: Ints, request_id: int) -> tuple[Ints, Ints]:
    """Items of a request's visible events, and how many steps before the last one each lies."""
    steps = step[seen.start[request_id] : seen.stop[request_id]]
    return seen.items(request_id), (steps[-1] - steps if steps.size else steps)


def recent_counts(tables: Tables, seen: Histories) -> Floats:
    """(V,) training events of each item, halved for every `HALF_LIFE` of the training span that has passed since."""
    trained = (tables.events[SPLIT] == TRAIN).to_numpy()
    times = tables.events[EVENT_TIME].dt.timestamp("us").to_numpy()[trained].astype(np.float64)
    if not times.size:
        raise DataError(
            "no event is in the training split, so no baseline can be fitted; check validation_days and test_days in "
            "dataset.json against the first events"
        )
    age = (times.max() - times) / max(np.ptp(times), 1.0)
    return np.bincount(seen.item[trained], 0.5 ** (age / HALF_LIFE), tables.items.height).astype(np.float32)


def _label_logits(tables: Tables) -> Floats:
    """(V,) log odds of each item's smoothed share of positive labels among the training candidates."""
    requests = tables.requests.filter(pl.col(SPLIT) == TRAIN)[REQUEST_ID]
    rows = tables.candidates.filter(pl.col(REQUEST_ID).is_in(requests.implode()))
    item, label = item_rows(tables, rows[ITEM_ID]), rows[LABEL].to_numpy()
    average = (label.sum() + 0.5) / (label.size + 1)
    positives = np.bincount(item, label, tables.items.height) + PRIOR_ROWS * average
    share = positives / (np.bincount(item, minlength=tables.items.height) + PRIOR_ROWS)
    logits: Floats = np.log(share / (1 - share))
    return logits


def _held(row: Ints, item: Ints, *, n_items: int) -> Any:
    """Sparse (rows, N): 1 where a row, such as a user or a step, has the item; items below 0 are left out."""
    from scipy import sparse

    known = item >= 0
    shape = (int(row.max(initial=-1)) + 1, n_items)
    held = sparse.csr_matrix((np.ones(int(known.sum()), dtype=np.float32), (row[known], item[known])), shape=shape)
    held.sum_duplicates()
    held.data[:] = 1
    return held


def _ease(held_UN: Any, *, ridge: float) -> Floats:  # noqa: N803
    """(N, N) weights by which items of a history vote for items, none for itself."""
    from scipy import linalg

    gram = (held_UN.T @ held_UN).toarray()
    diagonal = np.diag_indices(gram.shape[0])
    gram[diagonal] += ridge
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    weights: Floats = inverse / -np.diag(inverse)
    weights[diagonal] = 0
    return weights


def _transitions(held_SN: Any, user: Ints) -> Any:  # noqa: N803
    """Sparse (N, N): for each item, the shares of the items up to `WINDOW` steps later, each weighted 1/steps.

    Args:
        held_SN: which step has which item.
        user: (S,) whose step it is.
    """
    from scipy import sparse

    n_items = held_SN.shape[1]
    counts = sparse.csr_matrix((n_items, n_items), dtype=np.float32)
    for ahead in range(1, min(WINDOW, user.size - 1) + 1):
        same = user[:-ahead] == user[ahead:]
        counts = counts + held_SN[:-ahead][same].T @ held_SN[ahead:][same] / ahead
    total = np.asarray(counts.sum(axis=1)).ravel().astype(np.float32)
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(total, 1e-9)) @ counts)


def _standard(scores: Floats) -> Floats:
    """Each row to mean 0 and deviation 1; a constant row to 0."""
    deviation = scores.std(axis=1, keepdims=True)
    standard: Floats = (scores - scores.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    return standard
