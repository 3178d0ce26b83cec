"""The best items of a catalogue, without a score for every item.

Of the mixture in `lrm.model.repeats` only items of the history gain from the pointer; all others keep the order of
their logits. So the best items are among the best logits and the history, and only those need a score. The scores are
those of `Scorer.item_scores`.

Shape suffixes: R requests, V items of the catalogue, S items that may be among the best, T events, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.model.recommender import Recommender, States
from lrm.model.repeats import mixture

SCORED_AT_ONCE = 32_000_000
"""Logits held at a time: 128 MB."""


class Wanted(NamedTuple):
    """What one request asks of the catalogue."""

    k: int
    only: np.ndarray | None = None
    """Catalogue rows to choose from; None: all."""
    without: np.ndarray | None = None
    """Catalogue rows that must not be shown."""


class Best(NamedTuple):
    """The best items of one request, best first; equal scores in the order of the catalogue."""

    rows: np.ndarray
    scores: np.ndarray


@torch.inference_mode()
def best_items(
    recommender: Recommender,
    vectors_VD: Tensor,
    states: States,
    rows: Sequence[np.ndarray],
    wanted: Mapping[int, Wanted],
) -> dict[int, Best]:
    """The best items for some of the requests.

    Args:
        recommender: the model.
        vectors_VD: the vectors of the catalogue's items.
        states: of the requests, as `decode_over` gives them.
        rows: for each request, the catalogue row of each event of its history, -1 for an item that is not there.
        wanted: by request, what it asks for.
    """
    at_once = max(1, SCORED_AT_ONCE // len(vectors_VD))
    found: dict[int, Best] = {}
    for first in range(0, len(wanted), at_once):
        requests = list(wanted)[first : first + at_once]
        logit_RV = states.request_RD[requests] @ vectors_VD.T
        for r, logit_V in zip(requests, logit_RV, strict=True):
            found[r] = _best_of_one(recommender, logit_V, states, r, rows[r], wanted[r])
    return found


def _best_of_one(
    recommender: Recommender, logit_V: Tensor, states: States, request: int, row_T: np.ndarray, wanted: Wanted
) -> Best:
    is_item_T = row_T >= 0
    share_T = states.pointed.share_RT[request, : len(row_T)].cpu().numpy()[is_item_T]
    seen, event = np.unique(row_T[is_item_T], return_inverse=True)
    share = np.bincount(event, weights=share_T, minlength=len(seen)).astype(np.float32)
    if recommender.seen_bias is not None and len(seen):
        logit_V[torch.as_tensor(seen)] += recommender.seen_bias
    total = logit_V.logsumexp(-1)
    chosen_S = _may_be_best(logit_V, seen, wanted)
    place_S = np.searchsorted(seen, chosen_S).clip(max=max(0, len(seen) - 1))
    share_S = np.where(seen[place_S] == chosen_S, share[place_S], 0.0) if len(seen) else np.zeros(len(chosen_S))
    log_generated_S = logit_V[torch.as_tensor(chosen_S)] - total
    pointed_S = torch.as_tensor(share_S.astype(np.float32))
    score_S = mixture(log_generated_S, pointed_S, states.pointed.gate_R[request]).cpu().numpy()
    order = np.argsort(-score_S, kind="stable")[: wanted.k]
    return Best(chosen_S[order], score_S[order])


def _may_be_best(logit_V: Tensor, seen: np.ndarray, wanted: Wanted) -> np.ndarray:
    """(S,) catalogue rows, ascending, among which the k best are."""
    without = np.zeros(0, dtype=np.int64) if wanted.without is None else wanted.without
    if wanted.only is not None:
        return np.setdiff1d(wanted.only, without)
    if len(without):
        logit_V = logit_V.index_fill(0, torch.as_tensor(without), float("-inf"))
    if wanted.k >= len(logit_V):
        return np.setdiff1d(np.arange(len(logit_V)), without)
    kth = logit_V.topk(wanted.k, sorted=False).values.min()
    likely = torch.nonzero(logit_V >= kth).squeeze(-1).cpu().numpy()
    return np.setdiff1d(np.union1d(likely, seen), without)
