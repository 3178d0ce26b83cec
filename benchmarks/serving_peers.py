"""The same model behind plain FastAPI, one question at a time: python -m benchmarks.serving_peers RELEASE PORT.

With `--keep` at the end, the signals and events that were read of a user are kept for the next question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

K = 20


def answering(release: Path, *, keeps: bool = False) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The model's own forward pass over one user's stored history and signals, and the best of all scores."""
    import functools

    import torch

    from lrm.model.heads import Wanted
    from lrm.schema import QUERY
    from lrm.serving.engine.features import EntityRow, get_features
    from lrm.serving.engine.request_checks import RECOMMEND, PredictRequest
    from lrm.serving.engine.scoring import best_items
    from lrm.serving.engine.session import open_session, scoring_request_of, user_keys
    from lrm.serving.release import read_release

    torch.set_num_threads(1)
    session = open_session(read_release(release))

    def read(user: Any) -> Any:
        time, keys = session.release.as_of, user_keys(session, PredictRequest(RECOMMEND, user))
        columns = get_features(session.features, QUERY, [EntityRow(keys, {}, time)]).columns
        return scoring_request_of(session, user, time, {name: values[0] for name, values in columns.items()})

    asked = functools.cache(read) if keeps else read

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        wanted = Wanted(body.get("k", K))
        (best,) = best_items(session.recommender, session.items, [asked(body["user_id"])], [wanted])
        return {"items": session.items.item_ids[best.rows].tolist(), "scores": best.scores.tolist()}

    answer({"user_id": 0})
    return answer


def plain(release: Path, port: int, *, keeps: bool) -> None:
    """FastAPI as most would write it."""
    import threading

    import uvicorn
    from fastapi import Body, FastAPI

    answer, one_at_a_time, app = answering(release, keeps=keeps), threading.Lock(), FastAPI()

    @app.post("/v1/recommend")
    def recommend(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        with one_at_a_time:
            return answer(body)

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    plain(Path(sys.argv[1]), int(sys.argv[2]), keeps="--keep" in sys.argv)
