"""The best items of a catalogue, without a score for every item.

Of the mixture in `lrm.model.repeats` only items of the history gain from the pointer; all others keep the order of
their logits. So the best items are among the best logits and the history, and only those need a score. The scores are
those of `Scorer.item_scores`.

Over a small catalogue the logits are one matrix product. Over a large one an index (`lrm.model.index`) names the items
that may be best and estimates the sum that makes a probability of a logit: an item may be missed, and all scores of a
request are off by the same small amount. What an index cannot answer is answered by the product.

Shape suffixes: R requests, V items of the catalogue, S items that may be among the best, F found items, M sampled
items, T events, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.model.index import Index, log_total, nearest_items
from lrm.model.recommender import Recommender, States
from lrm.model.repeats import mixture

SCORED_AT_ONCE = 32_000_000
"""Logits held at a time: 128 MB."""
FOUND = 128
"""Items that an index finds for a request for few; over these the sum is exact."""
FOUND_EACH = 4
"""Items that it finds for each one wanted."""


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


class _History(NamedTuple):
    """What a request points at."""

    seen: np.ndarray
    """Catalogue rows, ascending."""
    share: np.ndarray
    """Of each, float32."""
    gate: Tensor


@torch.inference_mode()
def best_items(
    recommender: Recommender,
    vectors_VD: Tensor,
    states: States,
    rows: Sequence[np.ndarray],
    wanted: Mapping[int, Wanted],
    index: Index | None = None,
) -> dict[int, Best]:
    """The best items for some of the requests.

    Args:
        recommender: the model.
        vectors_VD: the vectors of the catalogue's items.
        states: of the requests, as `decode_over` gives them.
        rows: for each request, the catalogue row of each event of its history, -1 for an item that is not there.
        wanted: by request, what it asks for.
        index: of the catalogue; None: every item gets its logit.
    """
    found = _by_index(recommender, index, vectors_VD, states, rows, wanted) if index is not None else {}
    rest = [r for r in wanted if r not in found]
    at_once = max(1, SCORED_AT_ONCE // len(vectors_VD))
    for first in range(0, len(rest), at_once):
        requests = rest[first : first + at_once]
        logit_RV = states.request_RD[requests] @ vectors_VD.T
        for r, logit_V in zip(requests, logit_RV, strict=True):
            history = _pointed_at(states, r, rows[r])
            if recommender.seen_bias is not None:
                logit_V[torch.as_tensor(history.seen)] += recommender.seen_bias
            chosen_S = _may_be_best(logit_V, history.seen, wanted[r])
            logit_S = logit_V[torch.as_tensor(chosen_S)]
            found[r] = _ranked(chosen_S, logit_S - logit_V.logsumexp(-1), history, wanted[r].k)
    return found


def _by_index(
    recommender: Recommender,
    index: Index,
    vectors_VD: Tensor,
    states: States,
    rows: Sequence[np.ndarray],
    wanted: Mapping[int, Wanted],
) -> dict[int, Best]:
    """The best items of those requests that the index can answer."""
    depths: dict[int, list[int]] = {}
    for r, one in wanted.items():
        depths.setdefault(_depth(one), []).append(r)
    found = {}
    for depth, requests in depths.items():
        if depth > len(vectors_VD):
            continue
        request_RD = states.request_RD[requests]
        nearest_RF = nearest_items(index, request_RD, depth, n_lists=index.effort * max(1, depth // (4 * FOUND)))
        sampled_RM = request_RD @ index.sample_MD.T
        for r, request_D, nearest_F, sampled_M in zip(requests, request_RD, nearest_RF, sampled_RM, strict=True):
            history, one = _pointed_at(states, r, rows[r]), wanted[r]
            summed_S = np.union1d(nearest_F[:FOUND][nearest_F[:FOUND] >= 0], history.seen)
            logit_S = _logits(recommender, vectors_VD, request_D, history.seen, summed_S)
            total = log_total(index, sampled_M, summed_S, logit_S)
            chosen_S = _chosen(one, np.union1d(nearest_F[nearest_F >= 0], summed_S))
            if one.only is None and len(chosen_S) < one.k:
                continue
            if not np.array_equal(chosen_S, summed_S):
                logit_S = _logits(recommender, vectors_VD, request_D, history.seen, chosen_S)
            found[r] = _ranked(chosen_S, logit_S - total, history, one.k)
    return found


def _depth(wanted: Wanted) -> int:
    """Items that an index finds for a request: a power of two, so that like requests are looked up together."""
    if wanted.only is not None:
        return FOUND
    n = FOUND_EACH * wanted.k + (0 if wanted.without is None else len(wanted.without))
    return max(FOUND, 1 << (n - 1).bit_length())


def _logits(
    recommender: Recommender, vectors_VD: Tensor, request_D: Tensor, seen: np.ndarray, rows_S: np.ndarray
) -> Tensor:
    """(S,) the logits of some items."""
    logit_S = vectors_VD[torch.as_tensor(rows_S)] @ request_D
    if recommender.seen_bias is not None:
        logit_S[torch.as_tensor(np.isin(rows_S, seen))] += recommender.seen_bias
    return logit_S


def _pointed_at(states: States, request: int, row_T: np.ndarray) -> _History:
    """What one request points at, the events of an item together."""
    is_item_T = row_T >= 0
    share_T = states.pointed.share_RT[request, : len(row_T)].cpu().numpy()[is_item_T]
    seen, event = np.unique(row_T[is_item_T], return_inverse=True)
    share = np.bincount(event, weights=share_T, minlength=len(seen)).astype(np.float32)
    return _History(seen, share, states.pointed.gate_R[request])


def _ranked(chosen_S: np.ndarray, log_generated_S: Tensor, history: _History, k: int) -> Best:
    """The k best of some items, from their log-probabilities under the catalogue."""
    seen, share = history.seen, history.share
    place_S = np.searchsorted(seen, chosen_S).clip(max=max(0, len(seen) - 1))
    share_S = np.where(seen[place_S] == chosen_S, share[place_S], 0.0) if len(seen) else np.zeros(len(chosen_S))
    score_S = mixture(log_generated_S, torch.as_tensor(share_S.astype(np.float32)), history.gate).cpu().numpy()
    order = np.argsort(-score_S, kind="stable")[:k]
    return Best(chosen_S[order], score_S[order])


def _may_be_best(logit_V: Tensor, seen: np.ndarray, wanted: Wanted) -> np.ndarray:
    """(S,) catalogue rows, ascending, among which the k best are."""
    without = _left_out(wanted)
    if wanted.only is not None or wanted.k >= len(logit_V):
        return _chosen(wanted, np.arange(len(logit_V)))
    if len(without):
        logit_V = logit_V.index_fill(0, torch.as_tensor(without), float("-inf"))
    kth = logit_V.topk(wanted.k, sorted=False).values.min()
    likely = torch.nonzero(logit_V >= kth).squeeze(-1).cpu().numpy()
    return _chosen(wanted, np.union1d(likely, seen))


def _chosen(wanted: Wanted, likely: np.ndarray) -> np.ndarray:
    """(S,) catalogue rows, ascending, that a request may be shown: its own choice, or what is likely."""
    return np.setdiff1d(likely if wanted.only is None else wanted.only, _left_out(wanted))


def _left_out(wanted: Wanted) -> np.ndarray:
    return np.zeros(0, dtype=np.int64) if wanted.without is None else wanted.without
