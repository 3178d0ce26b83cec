"""The probe of a loaded release: it must score as offline scoring does, before anybody is served from it."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from lrm.errors import ServingError
from lrm.model.index import Index
from lrm.schema import ITEM_ID, QUERY
from lrm.serving.answer import answer
from lrm.serving.features import Row, describe
from lrm.serving.histories import Key, some_users
from lrm.serving.indexing import measure
from lrm.serving.question import RECOMMEND, SCORE, Question
from lrm.serving.recommend import retrieve
from lrm.serving.service import Service, ask_of, catalogue_rows, nobody, user_keys

PROBED = 4
"""Users whose answers are compared."""
TOLERANCE = 1e-4
MARGIN = 3.0
"""Scores found by an index may be off by so many times the largest error of the requests that it was measured on."""
LEAST_FOUND = 0.8
"""Share of the best items that an index must find for these few users; it was built to find `indexing.AIM`."""


def prove(service: Service) -> None:
    """Answer as offline scoring does for a few users, and warm up on the way.

    Raises:
        ServingError: a score is no number, or differs from the offline one by more than 1e-4; or, where an index finds
            the items, by more than its measured error allows, or the index does not find them.
    """
    users = some_users(service.histories, PROBED)
    some = tuple({ITEM_ID: item} for item in service.items.item_ids[:2].tolist())
    answer(service, [Question(SCORE, user, None, {}, some) for user in [nobody(service), *users]])
    answers = answer(service, [Question(RECOMMEND, user) for user in [nobody(service), *users]])
    error = 0.0 if service.index_facts is None else MARGIN * service.index_facts["score_error"]
    for user, found in zip(users, answers[1:], strict=True):
        time = datetime.fromisoformat(found["time"])
        known = describe(service.features, QUERY, [Row(user_keys(service, Question(RECOMMEND, user)), {}, time)])
        signals = {name: values[0] for name, values in known.columns.items()}
        (offline,) = retrieve(service.recommender, service.items, [ask_of(service, user, time, signals)])
        served = np.array([item["score"] for item in found["items"]])
        expected = offline[catalogue_rows(service, [item[ITEM_ID] for item in found["items"]])]
        if not np.all(np.abs(served - expected) <= error + TOLERANCE * np.maximum(1.0, np.abs(expected))):
            raise ServingError(
                f"{service.release.folder.name} does not score as offline: user {user!r} got {served.tolist()}, "
                f"expected {expected.tolist()}; train and promote a new version"
            )
    if service.catalogue_index is not None:
        _prove_index(service, service.catalogue_index, users)


def _prove_index(service: Service, index: Index, users: list[Key]) -> None:
    share = measure(service, index, users)["recall_at_20"]
    if share < LEAST_FOUND:
        raise ServingError(
            f"{service.release.folder.name}: the index finds {share:.0%} of the best items of {len(users)} users with "
            f"{index.effort} lists searched, at least {LEAST_FOUND:.0%} is asked; search more lists (--search-effort), "
            "or none (0)"
        )
