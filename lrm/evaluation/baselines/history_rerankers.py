"""What the user chose before, sorted by a ranker: the lists that retrieval must beat where tastes repeat.

Candidates that a request's history holds are sorted by the challenger's ranking head, or by the trees; all other items
follow in order of popularity. Nothing is scored again: these are the logits that the ranking task asked for. Candidates
that the history does not hold stay out, since what is shown may already tell of the outcome (a rating's only candidate
is the item that was rated).

Axes: R requests, N their candidate rows, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm.evaluation.baselines.simple import recent_counts
from lrm.evaluation.estimates import CHALLENGER
from lrm.evaluation.held_out import TREES, HeldOut, Predictions, predict
from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.evaluation.policy import RETRIEVAL
from lrm.evaluation.predictions import Histories, Ranking
from lrm.schema import ITEM_ID

SORTED_BY = {"history_by_ranker": (CHALLENGER, "ranking head"), "history_by_trees": (TREES, "boosted trees")}
"""Each of these lists, and whose logits sort it."""
LEAST_SHARE = 0.5
"""Of the requests, with candidates from their own history: with fewer, the lists are mostly those of popularity."""


class SortedHistory:
    """The candidates from a request's own history, the highest logit first; then all else in order of popularity."""

    def __init__(self, held_out: HeldOut, own: Mapping[int, Ints], logits: Floats) -> None:
        self.item_ids: NDArray[np.generic] = held_out.tables.items[ITEM_ID].to_numpy()
        popularity = recent_counts(held_out.tables, held_out.seen)
        self._behind = popularity / max(popularity.max(), 1e-9)
        self._own, self._above = own, logits - logits.min() + 2
        self._item = held_out.ranking.item if held_out.ranking is not None else np.zeros(0, dtype=np.int64)

    def item_scores(self, request_ids: Ints, /) -> Floats:
        """(R, V) logits moved above 1 for a request's own candidates, shares of the training events for all else."""
        scores: Floats = np.tile(self._behind, (request_ids.size, 1))
        for row, request_id in zip(scores, request_ids.tolist(), strict=True):
            rows = self._own.get(request_id, np.zeros(0, dtype=np.int64))
            row[self._item[rows]] = self._above[rows]
        return scores


def predict_rerankers(
    held_out: HeldOut, predictions: Mapping[str, Predictions]
) -> tuple[dict[str, Predictions], list[dict[str, Any]]]:
    """Rank the targets in each of these lists.

    Args:
        held_out: the held-out requests.
        predictions: of the challenger and the trees.

    Returns:
        The answers, and for each list that is not there `model`, `task` and `why`.
    """
    found: dict[str, Predictions] = {}
    absent: list[dict[str, Any]] = []
    if held_out.retrieval is None:
        return found, absent
    own = own_candidates(held_out.ranking, held_out.seen) if held_out.ranking is not None else {}
    n_asked, n_own = held_out.retrieval.request_ids.size, np.isin(held_out.retrieval.request_ids, list(own)).sum()
    for name, (ranker, called) in SORTED_BY.items():
        logits = predictions[ranker].logits if ranker in predictions else None
        if held_out.ranking is None:
            why = "the data have no ranking task"
        elif n_own < LEAST_SHARE * n_asked:
            why = f"{n_own:,} of {n_asked:,} requests have a candidate from their own history, less than half"
        elif logits is None:
            why = f"the {called} gave no scores of candidates"
        else:
            found[name] = predict(held_out, name, retriever=SortedHistory(held_out, own, logits), ranker=None)
            continue
        absent.append({"model": name, "task": RETRIEVAL, "why": why})
    return found, absent


def own_candidates(ranking: Ranking, seen: Histories) -> dict[int, Ints]:
    """Rows of the task whose item the history of their request holds, by request; only requests that have any."""
    order = np.argsort(ranking.request, kind="stable")
    parts = np.split(order, np.searchsorted(ranking.request[order], np.arange(1, ranking.request_ids.size)))
    found: dict[int, Ints] = {}
    for request_id, rows in zip(ranking.request_ids.tolist(), parts, strict=True):
        own = rows[np.isin(ranking.item[rows], seen.items(request_id))]
        if own.size:
            found[request_id] = own
    return found
