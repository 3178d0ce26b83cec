"""The probe of a loaded release: it must score as offline scoring does, before anybody is served from it."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from lrm.errors import ServingError
from lrm.schema import ITEM_ID, QUERY, USER_ID
from lrm.serving.answer import answer
from lrm.serving.features import Row, describe
from lrm.serving.histories import some_users
from lrm.serving.question import RECOMMEND, SCORE, Question
from lrm.serving.recommend import retrieve
from lrm.serving.service import Service, ask_of, catalogue_rows, user_keys

PROBED = 4
"""Users whose answers are compared."""
TOLERANCE = 1e-4


def prove(service: Service) -> None:
    """Answer as offline scoring does for a few users, and warm up on the way.

    Raises:
        ServingError: a score is no number, or differs from the offline one by more than 1e-4.
    """
    users = some_users(service.histories, PROBED)
    nobody = 0 if service.release.key_types[USER_ID] == "int64" else ""
    some = tuple({ITEM_ID: item} for item in service.items.item_ids[:2].tolist())
    answer(service, [Question(SCORE, user, None, {}, some) for user in [nobody, *users]])
    answers = answer(service, [Question(RECOMMEND, user) for user in [nobody, *users]])
    for user, found in zip(users, answers[1:], strict=True):
        time = datetime.fromisoformat(found["time"])
        known = describe(service.features, QUERY, [Row(user_keys(service, Question(RECOMMEND, user)), {}, time)])
        signals = {name: values[0] for name, values in known.columns.items()}
        (offline,) = retrieve(service.recommender, service.items, [ask_of(service, user, time, signals)])
        served = np.array([item["score"] for item in found["items"]])
        expected = offline[catalogue_rows(service, [item[ITEM_ID] for item in found["items"]])]
        if not np.all(np.abs(served - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))):
            raise ServingError(
                f"{service.release.folder.name} does not score as offline: user {user!r} got {served.tolist()}, "
                f"expected {expected.tolist()}; train and promote a new version"
            )
