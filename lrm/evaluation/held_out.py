"""The held-out requests, and what every model predicts for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from lrm.config import EvaluationConfig
from lrm.errors import DataError
from lrm.evaluation.baselines.simple import EaseMarkov, OwnHistory, Popular
from lrm.evaluation.baselines.trees import Trees
from lrm.evaluation.estimates import (
    POPULAR,
)
from lrm.evaluation.metrics.bootstrap import users_of_rarer
from lrm.evaluation.metrics.metrics import Floats, Ints
from lrm.evaluation.policy import RANKING, RETRIEVAL
from lrm.evaluation.predictions import (
    Histories,
    Ranker,
    Ranking,
    Ranks,
    Retrieval,
    Retriever,
    histories,
    rank_targets,
    ranking_task,
    retrieval_task,
)
from lrm.evaluation.slices import Mask, head_items
from lrm.features.tables import Tables
from lrm.model.scoring import Scorer
from lrm.progress import progress
from lrm.schema import CANDIDATE, EVENT_TIME, QUERY, SPLIT, TEST, TRAIN, Signal, for_maker, in_use

EASE_MARKOV, OWN_HISTORY, TREES = "ease_markov", "own_history", "trees"


class HeldOut(NamedTuple):
    """What every model is asked."""

    tables: Tables
    signals: tuple[Signal, ...]
    """What a new model reads."""
    retired: tuple[Signal, ...]
    """What only a champion may read."""
    seen: Histories
    retrieval: Retrieval | None
    ranking: Ranking | None
    head: Mask
    """(V,) the items that hold half of the training events."""
    k: int
    """Length of the list that a user sees."""

    def n_users(self) -> dict[str, int]:
        """Test users of each task that there is; of ranking, those with the rarer outcome."""
        found: dict[str, int] = {}
        if self.retrieval is not None:
            found[RETRIEVAL] = int(np.unique(self.retrieval.user).size)
        if self.ranking is not None:
            found[RANKING] = users_of_rarer(self.ranking.user, self.ranking.label)
        return found

    def judged_at(self) -> Ints:
        """(R,) the instants of the test requests, in microseconds."""
        asked = self.tables.requests.filter(pl.col(SPLIT) == TEST)[EVENT_TIME]
        return asked.dt.timestamp("us").to_numpy()


class Predictions(NamedTuple):
    """One model's answers; None where it was not asked, or where an answer is not a finite number (see `fault`)."""

    ranks: Ranks | None
    logits: Floats | None
    fault: str
    """A sentence, empty when all is well."""
    seconds: float


def prepare(tables: Tables, signals: tuple[Signal, ...], config: EvaluationConfig, *, seed: int) -> HeldOut:
    """Choose the held-out requests: the same for the same examples and seed, for every model.

    Raises:
        DataError: no test request has a target or a candidate.
    """
    rng = np.random.default_rng(seed)
    retrieval = retrieval_task(tables, max_requests=config.max_retrieval_requests, rng=rng)
    ranking = ranking_task(tables)
    if retrieval is None and ranking is None:
        raise DataError(
            "no test request has a target or a candidate, so there is nothing to evaluate; "
            "check test_days and as_of in dataset.json against the last events"
        )
    seen = histories(tables)
    kept = in_use(signals)
    gone = tuple(signal for signal in signals if signal.retired)
    return HeldOut(tables, kept, gone, seen, retrieval, ranking, head_items(tables, seen), config.k)


def predict(
    held_out: HeldOut, name: str, *, retriever: Retriever | Scorer | None, ranker: Ranker | None
) -> Predictions:
    """Let a model answer whatever it can answer and the held-out data ask."""
    started = time.perf_counter()
    ranks = logits = None
    faults = []
    if held_out.retrieval is not None and retriever is not None:
        ranks = rank_targets(
            retriever, held_out.retrieval, held_out.seen, tables=held_out.tables, name=name, n_top=held_out.k
        )
        if ranks.n_not_finite:
            faults.append(f"{ranks.n_not_finite:,} item scores")
    if held_out.ranking is not None and ranker is not None:
        logits = np.asarray(ranker.candidate_logits(held_out.ranking.request_ids))
        if logits.shape != held_out.ranking.label.shape:
            raise DataError(
                f"{name} gave logits of shape {logits.shape} for {held_out.ranking.label.size} candidate rows; "
                "give one logit for each row of the requests asked for"
            )
        bad = logits.size - int(np.count_nonzero(np.isfinite(logits)))
        if bad:
            faults.append(f"{bad:,} of {logits.size:,} candidate logits")
    seconds = time.perf_counter() - started
    if faults:
        return Predictions(None, None, f"The {name} is broken: {' and '.join(faults)} are NaN or infinite.", seconds)
    return Predictions(ranks, logits, "", seconds)


def predict_baselines(held_out: HeldOut, config: EvaluationConfig, *, seed: int) -> dict[str, Predictions]:
    """Fit the baselines on the training split, and let them answer; seconds include the fit."""
    found = {}
    for name, fit in progress(_baselines(held_out, config, seed).items(), what="baselines", unit="model"):
        started = time.perf_counter()
        retriever, ranker = fit()
        predictions = predict(held_out, name, retriever=retriever, ranker=ranker)
        found[name] = predictions._replace(seconds=time.perf_counter() - started)
    return found


def _baselines(
    held_out: HeldOut, config: EvaluationConfig, seed: int
) -> dict[str, Callable[[], tuple[Retriever | None, Ranker | None]]]:
    def popular() -> tuple[Retriever | None, Ranker | None]:
        model = Popular(held_out.tables, held_out.seen)
        return model, model

    found: dict[str, Callable[[], tuple[Retriever | None, Ranker | None]]] = {POPULAR: popular}
    if held_out.retrieval is not None:
        found[OWN_HISTORY] = lambda: (OwnHistory(held_out.tables, held_out.seen), None)
        found[EASE_MARKOV] = lambda: (EaseMarkov(held_out.tables, held_out.seen), None)
    train = ranking_task(held_out.tables, split=TRAIN) if held_out.ranking is not None else None
    is_described = any(for_maker(held_out.signals, maker) for maker in (QUERY, CANDIDATE))
    if is_described and train is not None and 0 < train.label.mean() < 1:
        found[TREES] = lambda: (None, Trees(held_out.tables, held_out.signals, n_trees=config.n_trees, seed=seed))
    return found
