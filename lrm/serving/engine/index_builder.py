"""The index of a release with a large catalogue: built, measured against the exact product, and kept with the release.

The lists to search and the accuracy are found with the requests of the release's own users, as the server answers them.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np

from lrm.model.heads import Best, Indexed, Wanted
from lrm.model.states import States
from lrm.serving.engine.histories import spread_users
from lrm.serving.engine.predict import request_states
from lrm.serving.engine.request_checks import RECOMMEND, PredictRequest
from lrm.serving.engine.session import Session, open_session
from lrm.serving.index_file import write_index
from lrm.serving.logs import log
from lrm.serving.release import Release

N_USERS = 512
"""Users whose requests are looked up: every other one to choose the effort, the rest to measure it."""
CHUNK_CANDIDATES = 32
K, DEEP_K = 20, 100
"""Recall is that of so many best items that are not in the history: those of the history need no index."""
AS_GOOD = 1e-3
"""An item that fits a request to within so much of the last of its best, in log-probability, is as good. Among millions
hundreds are that near to each other, and which of them come first is not worth searching half of the lists for."""
AIM, FLOOR = 0.99, 0.95
"""Recall for which the effort is chosen, and under which a release has no index."""


class _Lookups(NamedTuple):
    """Requests, and their best items without an index."""

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
    session = open_session(release)
    head, exact = session.recommender.head, session.items.catalogue.prepared
    if not isinstance(head, Indexed):
        log("no index: the item head of the model finds items without one")
        return release
    users = spread_users(session.histories, N_USERS)
    if len(users) < 2:
        log("no index: fewer than two users have a history to measure it with", level=logging.WARNING)
        return release
    tuning, testing = ([_lookups(session, some) for some in _batches(users[part::2])] for part in (0, 1))
    plan = head.plan_index(exact, [lookup.states for lookup in tuning])
    n_lists, effort, indexed = head.n_lists(plan), 1, head.open_index(exact, plan, effort=1)
    while _least_recall(_measured(session, indexed, tuning)) < AIM and 4 * effort <= n_lists:
        effort *= 2
        indexed = head.with_effort(indexed, effort)
    measured = _measured(session, indexed, testing)
    if _least_recall(measured) < FLOOR:
        log(f"no index: its recall is under {FLOOR}", level=logging.WARNING, **measured)
        return release
    facts = {"sha256": write_index(plan, release), "lists": n_lists, "effort": effort}
    return release._replace(catalogue_index=facts | measured)


def measure(session: Session, catalogue: Any, users: list[Any]) -> dict[str, Any]:
    """Recall and error of the index of a catalogue over the requests of some users, as in `Release.catalogue_index`."""
    return _measured(session, catalogue, [_lookups(session, users)])


def _batches(users: list[Any]) -> list[list[Any]]:
    return [users[first : first + CHUNK_CANDIDATES] for first in range(0, len(users), CHUNK_CANDIDATES)]


def _lookups(session: Session, users: list[Any]) -> _Lookups:
    states, rows = request_states(session, [PredictRequest(RECOMMEND, user) for user in users])
    exact = session.items.catalogue.prepared
    return _Lookups(states, rows, session.recommender.head.best(states, rows, _each(rows, DEEP_K), exact))


def _each(rows: list[np.ndarray], k: int) -> dict[int, Wanted]:
    return {r: Wanted(k, without=np.unique(row_T[row_T >= 0])) for r, row_T in enumerate(rows)}


def _measured(session: Session, catalogue: Any, lookups: list[_Lookups]) -> dict[str, Any]:
    """Recall and error of an index over requests whose best items are known."""
    get_user_states: dict[int, list[float]] = {K: [], DEEP_K: []}
    errors, head = [0.0], session.recommender.head
    assert isinstance(head, Indexed), "only such a head has an index"
    for lookup in lookups:
        for k in get_user_states:
            for r, found in head.best(lookup.states, lookup.rows, _each(lookup.rows, k), catalogue).items():
                exact = Best(lookup.best[r].rows[:k], lookup.best[r].scores[:k])
                share, error = head.compare(catalogue, lookup.states, r, found, exact, as_good=AS_GOOD)
                get_user_states[k].append(share)
                errors.append(error)
    shares = {f"recall_at_{k}": round(float(np.mean(found)), 4) for k, found in get_user_states.items()}
    return shares | {"score_error": round(max(errors), 6), "n_requests": len(get_user_states[K])}


def _least_recall(found: dict[str, Any]) -> float:
    return min(float(found[f"recall_at_{k}"]) for k in (K, DEEP_K))
