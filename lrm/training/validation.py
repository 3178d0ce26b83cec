"""Measure a model after each epoch: its losses on the validation split, and how well it retrieves there.

If nothing is ranked, the best epoch is the one with the best retrieval. The loss would choose a worse one: a model of
many rare items still learns to place the right item higher when its loss already rises, because it has become too sure
of the items that it places wrongly.

Shape suffixes: R requests, D model width, V items of the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from lrm.model.heads import Wanted
from lrm.model.recommender import Recommender
from lrm.model.states import States
from lrm.tokens.corpus import Corpus
from lrm.tokens.layout import event_rows
from lrm.tokens.prompt import Batch
from lrm.training.data import TrainingData
from lrm.training.losses import Losses
from lrm.training.objectives import ranking, retrieval

K = 10
"""NDCG counts targets among this many items."""
RANKING = "ranking"
RANKING_LOSS, RETRIEVAL_LOSS, RETRIEVAL_NDCG = "ranking_loss", "retrieval_loss", "retrieval_ndcg"


@torch.inference_mode()
def validate(recommender: Recommender, data: TrainingData, losses: Losses) -> dict[str, float]:
    """Measure each task that has targets in the validation split: mean losses in nats, and NDCG@10.

    NDCG@10 is measured only if nothing is ranked, because it needs a score for every item. Nothing is ranked if there
    are no candidates, or if ranking is not an objective.
    """
    recommender.eval()
    corpus, requests = data.corpus, data.validation_requests
    is_ranked = RANKING in recommender.config.training.objectives and bool(
        np.diff(corpus.candidate_offset_R)[requests].any()
    )
    has_targets = np.diff(corpus.target_offset_R)[requests].any()
    finds_items = has_targets and not is_ranked
    catalogue = recommender.head.prepare(recommender.factory, corpus) if finds_items else None
    totals = {name: [0.0, 0] for name in (RETRIEVAL_LOSS, RANKING_LOSS, RETRIEVAL_NDCG)}

    def add(name: str, mean: float, n: int) -> None:
        totals[name] = [totals[name][0] + mean * n, totals[name][1] + n]

    for batch in data.validation():
        states = recommender(batch)
        context = losses.context(batch, np.random.default_rng(0))
        with_targets = np.unique(context.targets.request_Q)
        add(RETRIEVAL_LOSS, retrieval.loss(states, context).item(), len(with_targets))
        if is_ranked:
            add(RANKING_LOSS, ranking.loss(states, context).item(), len(batch.candidates))
        if finds_items and len(with_targets):
            add(RETRIEVAL_NDCG, _ndcg(recommender, catalogue, states, batch, corpus, with_targets), len(with_targets))
    return {name: total / n for name, (total, n) in totals.items() if n}


def stopping_value(measured: Mapping[str, float]) -> float:
    """Return what early stopping minimises: the ranking loss, or if nothing is ranked, 1 - NDCG@10."""
    return measured.get(RANKING_LOSS, 1.0 - measured.get(RETRIEVAL_NDCG, -math.inf))


def _ndcg(
    recommender: Recommender, catalogue: Any, states: States, batch: Batch, corpus: Corpus, requests: np.ndarray
) -> float:
    """Average NDCG@10 over those requests of a batch that have targets."""
    visible_R = batch.layout.visible_R.cpu().numpy()
    history_rows = [
        row_T[:n_visible] for row_T, n_visible in zip(event_rows(batch.layout, batch.row_E), visible_R, strict=True)
    ]
    best = recommender.head.best(states, history_rows, {int(r): Wanted(K) for r in requests}, catalogue)
    gain = 1.0 / np.log2(np.arange(2, K + 2))
    total = 0.0
    for r in requests:
        targets = slice(*corpus.target_offset_R[batch.requests[r] : batch.requests[r] + 2])
        is_target = np.isin(best[int(r)].rows, corpus.target_row_T[targets])
        total += gain[: len(is_target)][is_target].sum() / gain[: targets.stop - targets.start].sum()
    return float(total / len(requests))
