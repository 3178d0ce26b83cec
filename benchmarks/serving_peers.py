"""The same model behind plain FastAPI, one question at a time: python -m benchmarks.serving_peers RELEASE PORT."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

K = 20


def answering(release: Path) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The model's own forward pass over one user's stored history and signals, and the best of all scores."""
    import torch

    from lrm.schema import QUERY
    from lrm.serving.features import Row, describe
    from lrm.serving.question import RECOMMEND, Question
    from lrm.serving.recommend import retrieve, top_items
    from lrm.serving.release import read_release
    from lrm.serving.service import ask_of, open_service, user_keys

    torch.set_num_threads(1)
    service = open_service(read_release(release))

    def answer(body: dict[str, Any]) -> dict[str, Any]:
        user, time = body["user_id"], service.release.as_of
        keys = user_keys(service, Question(RECOMMEND, user))
        columns = describe(service.features, QUERY, [Row(keys, {}, time)]).columns
        signals = {name: values[0] for name, values in columns.items()}
        (scores,) = retrieve(service.recommender, service.items, [ask_of(service, user, time, signals)])
        best = top_items(scores, k=body.get("k", K))
        return {"items": service.items.item_ids[best].tolist(), "scores": scores[best].tolist()}

    answer({"user_id": 0})
    return answer


def plain(release: Path, port: int) -> None:
    """FastAPI as most would write it."""
    import threading

    import uvicorn
    from fastapi import Body, FastAPI

    answer, one_at_a_time, app = answering(release), threading.Lock(), FastAPI()

    @app.post("/v1/recommend")
    def recommend(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        with one_at_a_time:
            return answer(body)

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    plain(Path(sys.argv[1]), int(sys.argv[2]))
