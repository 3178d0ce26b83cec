"""The index of a release with a large catalogue: built, measured against the exact product, and kept with the release.

The lists to search and the accuracy are found with the requests of the release's own users, as the server answers them.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.model.index import Index, open_index, plan_index
from lrm.model.recommender import States
from lrm.model.retrieval import Best, Wanted, best_items
from lrm.serving.engine.histories import spread_users
from lrm.serving.engine.predict import request_states
from lrm.serving.engine.request_checks import RECOMMEND, Question
from lrm.serving.engine.session import Service, open_service
from lrm.serving.index_file import write_index
from lrm.serving.logs import log
from lrm.serving.release import Release

N_USERS = 512
"""Users whose requests are looked up: every other one to choose the effort, the rest to measure it."""
AT_ONCE = 32
K, DEEP_K = 20, 100
"""Recall is that of so many best items that are not in the history: those of the history need no index."""
AS_GOOD = 1e-3
"""An item that fits a request to within so much of the last of its best, in log-probability, is as good. Among millions
hundreds are that near to each other, and which of them come first is not worth searching half of the lists for."""
AIM, FLOOR = 0.99, 0.95
"""Recall for which the effort is chosen, and under which a release has no index."""


class _Asked(NamedTuple):
    """Requests, and their best items by exact product."""

    states: States
    rows: list[np.ndarray]
    """Of each request, the catalogue rows of its history."""
    best: dict[int, Best]


def with_index(release: Release) -> Release:
    """Build the index of a release, measure it against the exact product, and keep it in the release's folder.

    An index whose recall is under `FLOOR` with half of its lists searched is not kept: the log says so, and the release
    is served by the exact product, which then costs no more.

    Returns:
        The release with `catalogue_index`: `sha256` of the file, `lists`, `effort` (lists searched for a request),
        `recall_at_20` and `recall_at_100` (share of the best places that hold an item which belongs there, or is
        `AS_GOOD`: recall by distance, as in ann-benchmarks, 1807.05614), `score_error` (largest difference of a score)
        and `n_requests` (on which all three were measured).
    """
    service = open_service(release)
    vectors = service.items.catalogue.vectors_VD
    users = spread_users(service.histories, N_USERS)
    if len(users) < 2:
        log("no index: fewer than two users have a history to measure it with", level=logging.WARNING)
        return release
    tuning, held = ([_asked(service, some) for some in _batches(users[part::2])] for part in (0, 1))
    plan = plan_index(vectors, _probabilities(vectors, [one.states.request_RD for one in tuning]))
    n_lists = len(plan.centre_CD)
    index = open_index(plan, vectors, effort=1)
    while _least_recall(_measured(service, index, tuning)) < AIM and 4 * index.effort <= n_lists:
        index = index._replace(effort=2 * index.effort)
    found = _measured(service, index, held)
    if _least_recall(found) < FLOOR:
        log(f"no index: its recall is under {FLOOR}", level=logging.WARNING, **found)
        return release
    facts = {"sha256": write_index(plan, release), "lists": n_lists, "effort": index.effort}
    return release._replace(catalogue_index=facts | found)


def measure(service: Service, index: Index, users: list[Any]) -> dict[str, Any]:
    """Recall and error of an index over the requests of some users, as in `Release.catalogue_index`."""
    return _measured(service, index, [_asked(service, users)])


def _batches(users: list[Any]) -> list[list[Any]]:
    return [users[first : first + AT_ONCE] for first in range(0, len(users), AT_ONCE)]


def _asked(service: Service, users: list[Any]) -> _Asked:
    states, rows = request_states(service, [Question(RECOMMEND, user) for user in users])
    vectors = service.items.catalogue.vectors_VD
    return _Asked(states, rows, best_items(service.recommender, vectors, states, rows, _each(rows, DEEP_K)))


def _each(rows: list[np.ndarray], k: int) -> dict[int, Wanted]:
    return {r: Wanted(k, without=np.unique(row_T[row_T >= 0])) for r, row_T in enumerate(rows)}


@torch.inference_mode()
def _probabilities(vectors: Tensor, requests: list[Tensor]) -> np.ndarray:
    """(V,) how likely each item is on average over batches of requests."""
    total = sum((batch @ vectors.T).softmax(-1).sum(0).double() for batch in requests)
    return np.asarray(total / sum(len(batch) for batch in requests))


def _measured(service: Service, index: Index, asked: list[_Asked]) -> dict[str, Any]:
    """Recall and error of an index over requests whose best items are known."""
    recall: dict[int, list[float]] = {K: [], DEEP_K: []}
    errors = [0.0]
    vectors = service.items.catalogue.vectors_VD
    for one in asked:
        for k in recall:
            found = best_items(service.recommender, vectors, one.states, one.rows, _each(one.rows, k), index)
            for r, best in found.items():
                exact, request = one.best[r], one.states.request_RD[r]
                mine, true = ((vectors[rows] @ request).numpy() for rows in (best.rows, exact.rows[:k]))
                recall[k].append(float((mine >= true[-1] - AS_GOOD).sum() / len(true)))
                errors.append(float(np.abs((best.scores - mine) - (exact.scores[0] - true[0])).max(initial=0.0)))
    shares = {f"recall_at_{k}": round(float(np.mean(found)), 4) for k, found in recall.items()}
    return shares | {"score_error": round(max(errors), 6), "n_requests": len(recall[K])}


def _least_recall(found: dict[str, Any]) -> float:
    return min(float(found[f"recall_at_{k}"]) for k in (K, DEEP_K))
