"""The two losses of joint training: which item comes next, and what becomes of a candidate.

Shape suffixes: P predictions, Q predictions at requests, T events of the longest segment, C candidates or classes,
D model width, V items of the catalogue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrm.model.recommender import Recommender, States
from lrm.model.repeats import repeat_bonus
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import forget_identities
from lrm.tokens.prompt import Batch, event_rows
from lrm.tokens.vocabulary import rows_of

SAMPLING_POWER = 0.75
"""Negatives are drawn in proportion to popularity to this power (word2vec, 1310.4546)."""
MAX_TARGETS = 8
"""Targets of a request that one step uses: neighbours in the target list from a random start."""
FORGET_SHARE = 0.1
"""Share of item identities hidden in a step, so that content alone must do (see `forget_identities`)."""


class Predictions(NamedTuple):
    """States that should point at an item, with the item each should point at."""

    state_PD: Tensor
    row_P: np.ndarray
    """Row of the catalogue."""
    weight_P: Tensor
    """Sums to 1 over the events, and to 1 over the requests, whose targets share their request's weight."""
    repeat_QT: Tensor
    """Log-weights of past events, for the last Q predictions: those of requests."""
    repeat_row_QT: np.ndarray
    """Catalogue rows of those events."""


def predictions(states: States, batch: Batch, corpus: Corpus, rng: np.random.Generator) -> Predictions:
    """Next-item predictions at every training event, and at every request for (a sample of) its targets."""
    is_target_E = ~batch.is_first_E & corpus.event_is_train_E[batch.events] & (batch.events >= batch.target_from_E)
    events = np.flatnonzero(is_target_E)
    n_targets = np.diff(corpus.target_offset_R)[batch.requests]
    counts = np.minimum(n_targets, MAX_TARGETS)
    requests = np.repeat(np.arange(len(batch.requests)), counts)
    places = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (places + rng.integers(0, n_targets.clip(1))[requests]) % n_targets[requests]
    targets = corpus.target_offset_R[batch.requests][requests] + places
    rows = np.concatenate([corpus.event_row_E[batch.events[events]], corpus.target_row_T[targets]])
    state_PD = torch.cat([states.event_ED[torch.from_numpy(events - 1)], states.request_RD[torch.from_numpy(requests)]])
    per_event, per_request = 1.0 / max(1, len(events)), 1.0 / max(1, int(np.count_nonzero(counts)))
    weight_P = np.concatenate([np.full(len(events), per_event), per_request / counts[requests]]).astype(np.float32)
    repeated = torch.from_numpy(requests)
    return Predictions(
        state_PD, rows, torch.from_numpy(weight_P), states.repeat_RT[repeated], event_rows(batch, corpus)[requests]
    )


class Negatives:
    """The items a prediction is told apart from: all of a small catalogue, a fresh sample of a large one.

    A sample is corrected for how often each item is drawn (log-Q, Bengio and Senecal 2008), and never holds a
    prediction's own target as a negative.
    """

    def __init__(self, item_counts_V: np.ndarray, *, n_negatives: int, full_up_to: int) -> None:
        weight_V = (item_counts_V + 1e-3) ** SAMPLING_POWER
        self._share_V = weight_V / weight_V.sum()
        self._cumulative_V = np.cumsum(self._share_V)
        self._n_negatives = n_negatives
        self._is_full = len(item_counts_V) <= full_up_to

    def classes(self, row_P: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The candidate rows (C,), their log-Q corrections (C,), and the class of each target (P,)."""
        if self._is_full:
            n_items = len(self._share_V)
            return np.arange(n_items), np.zeros(n_items, dtype=np.float32), row_P
        draws = np.searchsorted(self._cumulative_V, rng.random(self._n_negatives) * self._cumulative_V[-1])
        rows = np.union1d(draws, row_P)
        expected = 1.0 - (1.0 - self._share_V[rows]) ** self._n_negatives
        return rows, np.log(expected).astype(np.float32), np.searchsorted(rows, row_P)


def retrieval_loss(
    recommender: Recommender,
    corpus: Corpus,
    made: Predictions,
    negatives: Negatives,
    *,
    rng: np.random.Generator,
    generator: torch.Generator | None,
) -> Tensor:
    """Mean cross-entropy at events plus that at requests, in nats; with `generator`, some identities are forgotten."""
    rows, log_q, class_P = negatives.classes(made.row_P, rng)
    identity_C = torch.from_numpy(corpus.item_identity_V[rows])
    if generator is not None:
        identity_C = forget_identities(identity_C, share=FORGET_SHARE, generator=generator)
    item_CD = recommender.factory.item_vectors(identity_C, corpus.content_V.take(rows))
    class_QT = torch.from_numpy(rows_of(made.repeat_row_QT.ravel(), rows).reshape(made.repeat_row_QT.shape))
    bonus_QC = repeat_bonus(made.repeat_QT, class_QT, n_classes=len(rows))
    logits_PC = made.state_PD @ item_CD.T - torch.from_numpy(log_q)
    n_events = len(logits_PC) - len(bonus_QC)
    logits_PC = torch.cat([logits_PC[:n_events], logits_PC[n_events:] + bonus_QC])
    loss_P = functional.cross_entropy(logits_PC, torch.from_numpy(class_P), reduction="none")
    return (loss_P * made.weight_P).sum()


def ranking_loss(states: States, batch: Batch, corpus: Corpus) -> Tensor:
    """Mean log loss of the candidates' outcomes, in nats; 0 for a batch without candidates."""
    if not len(batch.candidates):
        return states.candidate_logit_C.sum()
    label_C = torch.from_numpy(corpus.label_C[batch.candidates])
    return functional.binary_cross_entropy_with_logits(states.candidate_logit_C, label_C)


def forget(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with a share of its items' identities hidden."""
    return batch._replace(
        identity_E=forget_identities(batch.identity_E, share=FORGET_SHARE, generator=generator),
        identity_C=forget_identities(batch.identity_C, share=FORGET_SHARE, generator=generator),
    )
