"""A few recommendations to look at, beside the history they came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from lrm.evaluation.estimates import number
from lrm.evaluation.held_out import HeldOut
from lrm.evaluation.predictions import Retriever, best_items
from lrm.model.scoring import Scorer
from lrm.schema import EVENT_TIME, ITEM, ITEM_ID, SPARSE, USER_ID

N_USERS = 5
N_HISTORY = 10
"""Most recent events shown of a user."""
TITLES = ("title", "product_type")
"""Item signals that name an item, the first there is; else the first sparse signal of items does."""


def recommend(
    held_out: HeldOut, retriever: Retriever | Scorer, *, k: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The top k for a few random users, histories in time order; empty without a retrieval task.

    `hit` says that the item is among the request's targets.
    """
    task = held_out.retrieval
    if task is None:
        return []
    _, first = np.unique(task.user, return_index=True)
    chosen = np.sort(rng.choice(first, min(N_USERS, first.size), replace=False))
    titles = _titles(held_out)
    ids = held_out.tables.items[ITEM_ID].to_list()
    row_of = {item: row for row, item in enumerate(ids)}
    names = list(retriever.item_ids.tolist())
    times = held_out.tables.events[EVENT_TIME]
    found = []
    for index, best in zip(chosen, best_items(retriever, task.request_ids[chosen], k=k), strict=True):
        request_id = int(task.request_ids[index])
        wanted = {ids[row] for row in task.item[task.request == index]}
        events = np.arange(held_out.seen.start[request_id], held_out.seen.stop[request_id])[-N_HISTORY:].tolist()
        top = [(names[row], score) for row, score in zip(best.rows, best.scores, strict=True)]
        found.append(
            {
                "user_id": held_out.tables.requests[USER_ID][request_id],
                "time": held_out.tables.requests[EVENT_TIME][request_id].isoformat(),
                "history": [
                    {"item": ids[row], "title": titles[row], "time": times[event].isoformat()}
                    for event, row in zip(events, held_out.seen.item[events], strict=True)
                ],
                "recommended": [
                    {"item": item, "title": titles[row_of[item]], "score": number(score), "hit": item in wanted}
                    for item, score in top
                ],
            }
        )
    return found


def _titles(held_out: HeldOut) -> list[str]:
    """A name for each row of items."""
    items = held_out.tables.items
    sparse = [signal.name for signal in held_out.signals if signal.entity == ITEM and signal.kind == SPARSE]
    named = next((name for name in (*TITLES, *sparse) if name in items.columns), None)
    ids = items[ITEM_ID].cast(pl.String)
    if named is None:
        return ids.to_list()
    title = pl.col(named).cast(pl.String)
    label = title if named == TITLES[0] else pl.format("{} ({})", title, pl.col(ITEM_ID))
    return items.select(label.fill_null(pl.col(ITEM_ID).cast(pl.String))).to_series().to_list()
