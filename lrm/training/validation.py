"""What training is judged by after each epoch: its losses over the validation window, and how well it retrieves there.

Where nothing is ranked, the best epoch is that of the best retrieval. The loss does not tell: a model of many rare
items comes to place the right one higher long after it has grown too sure of those that it places wrongly.

Shape suffixes: R requests, D model width, V items of the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from lrm.model.recommender import Recommender, States
from lrm.model.retrieval import Wanted, best_items
from lrm.model.scoring import SCORING_TOKENS, item_vectors
from lrm.tokens.corpus import Corpus
from lrm.tokens.prompt import Batch, build_batch, event_rows
from lrm.tokens.segments import scoring_segments, segment_tokens, token_batches
from lrm.training.context import Context
from lrm.training.generated import Negatives
from lrm.training.objectives import ranking, retrieval

MAX_REQUESTS = 4000
K = 10
"""Items shown, of which retrieval is judged."""
RANKING_LOSS, RETRIEVAL_LOSS, RETRIEVAL_NDCG = "ranking_loss", "retrieval_loss", "retrieval_ndcg"


@torch.inference_mode()
def validate(recommender: Recommender, corpus: Corpus, negatives: Negatives) -> dict[str, float]:
    """Means over the validation window, of each task that has validation targets: losses in nats, and NDCG@10.

    Only where nothing is ranked is NDCG@10 measured: it takes a score for every item.
    """
    recommender.eval()
    requests = np.flatnonzero(corpus.split_R == 1)
    requests = requests[:: max(1, len(requests) // MAX_REQUESTS)]
    is_ranked = np.diff(corpus.candidate_offset_R)[requests].any()
    is_asked = np.diff(corpus.target_offset_R)[requests].any()
    vectors_VD = item_vectors(recommender, corpus) if is_asked and not is_ranked else None
    totals = {name: [0.0, 0] for name in (RETRIEVAL_LOSS, RANKING_LOSS, RETRIEVAL_NDCG)}

    def add(name: str, mean: float, n: int) -> None:
        totals[name] = [totals[name][0] + mean * n, totals[name][1] + n]

    for batch in _batches(recommender, corpus, requests):
        states = recommender(batch)
        context = Context(recommender, corpus, batch, negatives, rng=np.random.default_rng(0))
        asked = np.flatnonzero(np.diff(corpus.target_offset_R)[batch.requests])
        add(RETRIEVAL_LOSS, retrieval.loss(states, context).item(), len(asked))
        add(RANKING_LOSS, ranking.loss(states, context).item(), len(batch.candidates))
        if vectors_VD is not None and len(asked):
            add(RETRIEVAL_NDCG, _ndcg(recommender, vectors_VD, states, batch, corpus, asked), len(asked))
    return {name: total / n for name, (total, n) in totals.items() if n}


def judged(found: Mapping[str, float]) -> float:
    """What early stopping wants least of: the ranking loss, or where nothing is ranked, what NDCG@10 lacks to 1."""
    return found.get(RANKING_LOSS, 1.0 - found.get(RETRIEVAL_NDCG, -math.inf))


def _ndcg(
    recommender: Recommender, vectors_VD: Tensor, states: States, batch: Batch, corpus: Corpus, asked: np.ndarray
) -> float:
    """Mean NDCG@10 of the requests of a batch that have targets."""
    visible_R = batch.layout.visible_R.cpu().numpy()
    rows = [
        row_T[:n]
        for row_T, n in zip(event_rows(batch.layout, corpus.event_row_E[batch.events]), visible_R, strict=True)
    ]
    found = best_items(recommender, vectors_VD, states, rows, {int(r): Wanted(K) for r in asked})
    gain = 1.0 / np.log2(np.arange(2, K + 2))
    total = 0.0
    for r in asked:
        targets = slice(*corpus.target_offset_R[batch.requests[r] : batch.requests[r] + 2])
        is_target = np.isin(found[int(r)].rows, corpus.target_row_T[targets])
        total += gain[: len(is_target)][is_target].sum() / gain[: targets.stop - targets.start].sum()
    return float(total / len(asked))


def _batches(recommender: Recommender, corpus: Corpus, requests: np.ndarray) -> Iterator[Batch]:
    shape = recommender.prompt_shape()
    segments = scoring_segments(corpus, requests, max_history=shape.max_history)
    lengths = segment_tokens(corpus, segments, shape)
    for rows in token_batches(lengths, batch_tokens=SCORING_TOKENS, rng=None):
        yield build_batch(corpus, segments.pick(rows), shape)
