"""A registered version as a Python function: `mlflow.pyfunc.load_model("models:/<name>@champion").predict(requests)`.

The registry's client imports this module by name. A request brings everything known of it (see
`lrm.registry.signature`), so neither a feature store nor a history is needed; the answers are those of the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from lrm.features.sources import INSTANT_TYPE
from lrm.model.artifact import load
from lrm.model.heads import Wanted
from lrm.model.recommender import Recommender
from lrm.schema import CANDIDATE, EVENT_TIME, HISTORY, ITEM_ID, QUERY, for_maker
from lrm.serving.engine.scoring import (
    Items,
    ScoringRequest,
    best_items,
    columns,
    encode_items,
    rank,
    require_own_signals,
)

K = 10
"""Items that each answer recommends."""


class Function:
    """A loaded bundle."""

    def __init__(self, recommender: Recommender, items: Items) -> None:
        self._recommender, self._items = recommender, items

    def predict(self, requests: Any) -> list[dict[str, Any]]:
        """Answer a data frame of requests: `items` and `scores`, best first, and the candidates' `probabilities`.

        A cell that a row does not bring is None: where another row brings it, the frame has filled it with a NaN.
        """
        given = requests.astype(object).where(requests.notna(), None)
        asks = [self._ask(row) for row in given.to_dict("records")]
        ranked = rank(self._recommender, self._items, asks)
        found = best_items(self._recommender, self._items, asks, [Wanted(K)] * len(asks))
        return [
            {
                "items": self._items.item_ids[best.rows].tolist(),
                "scores": best.scores.tolist(),
                "probabilities": probabilities.astype("float32").tolist(),
            }
            for best, probabilities in zip(found, ranked, strict=True)
        ]

    def _ask(self, row: Mapping[str, Any]) -> ScoringRequest:
        signals, item_type = self._recommender.signals, pl.Series(self._items.item_ids).dtype
        history = pl.DataFrame(
            [dict(event) | {EVENT_TIME: _instant(event[EVENT_TIME])} for event in row[HISTORY]],
            schema=columns(signals, HISTORY, item_id=item_type, event_time=INSTANT_TYPE),
            strict=False,
        )
        candidates = pl.DataFrame(
            [dict(candidate) for candidate in row.get("candidates") or []],
            schema=columns(signals, CANDIDATE, **{ITEM_ID: item_type}),
            strict=False,
        )
        query = {signal.name: row.get(signal.name) for signal in for_maker(signals, QUERY)}
        return ScoringRequest(
            _instant(row[EVENT_TIME]), query, history.sort(EVENT_TIME, maintain_order=True), candidates
        )


def _load_pyfunc(path: str) -> Function:
    """Load the bundle in `path`; the name is the registry client's."""
    recommender = load(Path(path))
    require_own_signals(recommender)
    return Function(recommender, encode_items(recommender, pl.read_parquet(Path(path) / "items.parquet", glob=False)))


def _instant(text: str) -> datetime:
    """An ISO instant; without a zone it means UTC."""
    instant = datetime.fromisoformat(text)
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
