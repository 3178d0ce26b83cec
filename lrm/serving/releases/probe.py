"""The probe of a loaded release: it must score as offline scoring does, before anybody is served from it."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import polars as pl

from lrm.errors import ServingError, StoreError
from lrm.model.heads import Wanted
from lrm.schema import CANDIDATE, ITEM_ID, QUERY
from lrm.serving.engine.answer import Answer
from lrm.serving.engine.features import EntityRow, get_features
from lrm.serving.engine.histories import Key, some_users
from lrm.serving.engine.index_builder import measure
from lrm.serving.engine.predict import predict
from lrm.serving.engine.request_checks import RECOMMEND, SCORE, PredictRequest
from lrm.serving.engine.scoring import ScoringRequest, best_items, columns, rank
from lrm.serving.engine.session import Session, catalogue_rows, scoring_request_of, unknown_user_id, user_keys

PROBED = 4
"""Users whose answers are compared."""
TOLERANCE = 1e-4
MARGIN = 3.0
"""Scores found by an index may be off by so many times the largest error of the requests that it was measured on."""
LEAST_FOUND = 0.8
"""Share of the best items that an index must find for these few users; it was built to find `index_builder.AIM`."""


def prove(session: Session) -> None:
    """Answer as offline scoring does for a few users, and warm up on the way.

    Raises:
        StoreError: the online store did not answer, so that nothing was proved.
        ServingError: a score or a probability is no number, or differs from the offline one by more than 1e-4; or,
            where an index finds the items, by more than its measured error allows, or the index does not find them.
    """
    try:
        _compare_with_offline(session)
    finally:  # what differs while the store is away says nothing of the release
        if session.features.circuit_breaker.n_failed:
            raise StoreError(
                f"the online store did not answer while {session.release.folder.name} was proved; see the log, and "
                "start again once it does"
            )


def _compare_with_offline(session: Session) -> None:
    users = some_users(session.histories, PROBED)
    some = tuple({ITEM_ID: item} for item in session.items.item_ids[:2].tolist())
    scored = predict(
        session, [PredictRequest(SCORE, user, None, {}, some) for user in [unknown_user_id(session), *users]]
    )
    found = predict(session, [PredictRequest(RECOMMEND, user) for user in [unknown_user_id(session), *users]])
    error = 0.0 if session.index_facts is None else MARGIN * session.index_facts["score_error"]
    for user, answered in zip(users, found[1:], strict=True):
        rows = catalogue_rows(session, [item["item_id"] for item in answered["items"]])
        ask, wanted = _scoring_request(session, user, answered), Wanted(len(rows), only=rows)
        (offline,) = best_items(session.recommender, session.items, [ask], [wanted])
        score_of = dict(zip(offline.rows.tolist(), offline.scores, strict=True))
        due = np.array([score_of[row] for row in rows.tolist()])
        _compare(session, [item["score"] for item in answered["items"]], due, error=error)
    for user, answered in zip(users, scored[1:], strict=True):
        (expected,) = rank(session.recommender, session.items, [_scoring_request(session, user, answered)])
        _compare(session, [item["probability"] for item in answered["items"]], expected)
    if not all(math.isfinite(item["probability"]) for item in scored[0]["items"]):
        raise ServingError(f"{session.release.folder.name}: a user of whom nothing is known gets no probability")
    if session.search_effort is not None:
        _prove_index(session, users)


def _scoring_request(session: Session, user: Key, answered: Answer) -> ScoringRequest:
    """What was asked, as offline scoring takes it, with the items of the answer as candidates."""
    keys, time = user_keys(session, PredictRequest(RECOMMEND, user)), datetime.fromisoformat(answered["time"])
    known = get_features(session.features, QUERY, [EntityRow(keys, {}, time)])
    ask = scoring_request_of(session, user, time, {name: values[0] for name, values in known.columns.items()})
    items = [item["item_id"] for item in answered["items"]]
    offered = get_features(
        session.features, CANDIDATE, [EntityRow({**keys, ITEM_ID: item}, {}, time) for item in items]
    )
    schema = columns(session.recommender.signals, CANDIDATE, item_id=session.features.item_type)
    return ask._replace(candidates=pl.DataFrame({ITEM_ID: items} | offered.columns, schema=schema, strict=False))


def _compare(session: Session, served: list[float], expected: np.ndarray, *, error: float = 0.0) -> None:
    """The message comes into logs, where users are not named."""
    if not np.all(np.abs(np.array(served) - expected) <= error + TOLERANCE * np.maximum(1.0, np.abs(expected))):
        raise ServingError(
            f"{session.release.folder.name} does not score as offline: a user got {served}, "
            f"expected {expected.tolist()}; train and promote a new version"
        )


def _prove_index(session: Session, users: list[Key]) -> None:
    share = measure(session, session.catalogue, users)["recall_at_20"]
    if share < LEAST_FOUND:
        raise ServingError(
            f"{session.release.folder.name}: the index finds {share:.0%} of the best items of {len(users)} users with "
            f"{session.search_effort} lists searched, at least {LEAST_FOUND:.0%} is asked; search more lists "
            "(--search-effort), or none (0)"
        )
