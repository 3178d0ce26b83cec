"""The losses of joint training: which item comes next, which follow a request, what becomes of a candidate.

Shape suffixes: P predictions, Q predictions at requests, T events of the longest segment, C candidates or drawn items,
D model width, V items of the catalogue.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrm.model.recommender import Recommender, States
from lrm.model.repeats import mixture
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import forget_identities
from lrm.tokens.prompt import Batch, event_rows
from lrm.training.cross_entropy import Seen, mean_nll

SAMPLING_POWER = 0.75
"""Negatives are drawn in proportion to popularity to this power (word2vec, 1310.4546)."""
MAX_TARGETS = 8
"""Targets of a request that one step uses: neighbours in the target list from a random start."""


class Negatives:
    """The items a prediction is told apart from: all of a small catalogue, a fresh sample of a large one.

    A sample is corrected for how often each item is drawn (importance sampling, Bengio and Senecal 2008).
    """

    def __init__(self, item_counts_V: np.ndarray, *, n_negatives: int, full_up_to: int) -> None:
        weight_V = (item_counts_V + 1e-3) ** SAMPLING_POWER
        self._share_V = weight_V / weight_V.sum()
        self._cumulative_V = np.cumsum(self._share_V)
        self._n_negatives = n_negatives
        self.is_full = len(item_counts_V) <= full_up_to

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Distinct rows of the catalogue (C,) and the log of how often each is drawn, float32 (C,)."""
        if self.is_full:
            return np.arange(len(self._share_V)), np.zeros(len(self._share_V), dtype=np.float32)
        drawn = np.searchsorted(self._cumulative_V, rng.random(self._n_negatives) * self._cumulative_V[-1])
        rows = np.unique(drawn)
        return rows, np.log(1.0 - (1.0 - self._share_V[rows]) ** self._n_negatives).astype(np.float32)


class Generated:
    """Log-probabilities of items under the catalogue, for one step: its negatives' vectors are made once.

    With `generator`, a share of identities is forgotten, as the configuration says.
    """

    def __init__(
        self,
        recommender: Recommender,
        corpus: Corpus,
        negatives: Negatives,
        targets: np.ndarray,
        *,
        rng: np.random.Generator,
        generator: torch.Generator | None = None,
    ) -> None:
        drawn, log_q = negatives.draw(rng)
        self._rows = np.union1d(drawn, targets)
        self._drawn = torch.as_tensor(np.searchsorted(self._rows, drawn))
        self._log_q = torch.as_tensor(log_q)
        self._is_full = negatives.is_full
        identity_C = torch.as_tensor(corpus.item_identity_V[self._rows])
        if generator is not None:
            share = recommender.config.training.forget_share
            identity_C = forget_identities(identity_C, share=share, generator=generator)
        self._item_CD = recommender.factory.item_vectors(identity_C, corpus.content_V.take(self._rows))

    def log_p(
        self, state_PD: Tensor, row_P: np.ndarray, seen: Seen | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(P,) log-probability of each state's own target, which a sample holds exactly once: as itself.

        Args:
            state_PD: the states.
            row_P: rows of their targets.
            seen: what the history of each holds.
            bias: what the logits of those items gain.
        """
        class_P = torch.as_tensor(np.searchsorted(self._rows, row_P))
        logit_P = (state_PD * self._item_CD[class_P]).sum(-1)
        logit_PC = state_PD @ self._item_CD[self._drawn].T - self._log_q
        if seen is not None and bias is not None:
            gain_PC = bias * self._held(seen, len(row_P))
            logit_P = logit_P + gain_PC[torch.arange(len(row_P)), class_P]
            logit_PC = logit_PC + gain_PC[:, self._drawn]
        if self._is_full:
            return logit_P - logit_PC.logsumexp(-1)
        others_PC = logit_PC.masked_fill(self._drawn == class_P.unsqueeze(-1), float("-inf"))
        return logit_P - torch.logaddexp(others_PC.logsumexp(-1), logit_P)

    def _held(self, seen: Seen, n: int) -> Tensor:
        """(P, C) 1 for the items that each of `n` histories holds, else 0."""
        rows_S = seen.class_S.cpu().numpy()
        class_S = np.searchsorted(self._rows, rows_S).clip(max=len(self._rows) - 1)
        is_here_S = torch.as_tensor(self._rows[class_S] == rows_S)
        held_PC = torch.zeros(n, len(self._rows))
        held_PC[seen.row_S[is_here_S], torch.as_tensor(class_S)[is_here_S]] = 1.0
        return held_PC

    def mean_nll(self, state_PD: Tensor, row_P: np.ndarray, seen: Seen | None, bias: Tensor | None) -> Tensor:
        """Mean negative log-probability of each state's own target under the whole catalogue; 0 without states."""
        kind = state_PD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else state_PD.dtype
        return mean_nll(state_PD.to(dtype), self._item_CD.to(dtype), torch.as_tensor(row_P), seen=seen, bias=bias)


def event_targets(batch: Batch, corpus: Corpus) -> np.ndarray:
    """Rows of the batch's events that are next-item targets of the event before them."""
    is_target_E = ~batch.is_first_E & corpus.event_is_train_E[batch.events] & (batch.events >= batch.target_from_E)
    return np.flatnonzero(is_target_E)


def seen_before(batch: Batch, corpus: Corpus, events: np.ndarray) -> Seen:
    """The items of each target's segment before it, at their first occurrence there. Targets are rows of the batch."""
    start_E = np.maximum.accumulate(np.where(batch.is_first_E, np.arange(len(batch.events)), 0))
    return _held_between(batch, corpus, start_E[events], events)


def seen_by(batch: Batch, corpus: Corpus, requests: np.ndarray) -> Seen:
    """The items of the events that requests of the batch see, likewise."""
    layout = batch.layout
    segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    start_Q = np.searchsorted(segment_E, layout.segment_R.cpu().numpy()[requests])
    return _held_between(batch, corpus, start_Q, start_Q + layout.visible_R.cpu().numpy()[requests])


def _held_between(batch: Batch, corpus: Corpus, start_P: np.ndarray, end_P: np.ndarray) -> Seen:
    """The items of runs of the batch's events, each of which begins where a segment does."""
    row_E, slot_E = corpus.event_row_E[batch.events], batch.layout.event_slot_E
    first_E = batch.layout.first_GT.flatten()[slot_E]
    is_new_E = (first_E == slot_E % batch.layout.events_shape[1]).cpu().numpy()
    new, before_E = np.flatnonzero(is_new_E), np.concatenate([[0], np.cumsum(is_new_E)])
    begin_P, count_P = before_E[start_P], before_E[end_P] - before_E[start_P]
    offset = np.concatenate([[0], np.cumsum(count_P)])
    place = np.arange(offset[-1]) + np.repeat(begin_P - offset[:-1], count_P)
    row = np.repeat(np.arange(len(start_P)), count_P)
    return Seen(torch.as_tensor(offset), torch.as_tensor(row_E[new[place]]), torch.as_tensor(row))


def request_targets(batch: Batch, corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Requests of the batch (Q,) and, for each, the place in the corpus of one (sampled) target (Q,)."""
    n_targets = np.diff(corpus.target_offset_R)[batch.requests]
    counts = np.minimum(n_targets, MAX_TARGETS)
    requests = np.repeat(np.arange(len(batch.requests)), counts)
    places = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (places + rng.integers(0, n_targets.clip(1))[requests]) % n_targets[requests]
    return requests, corpus.target_offset_R[batch.requests][requests] + places


def retrieval_losses(
    recommender: Recommender,
    states: States,
    batch: Batch,
    corpus: Corpus,
    negatives: Negatives,
    *,
    rng: np.random.Generator,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Mean negative log-likelihoods in nats: of the next item at events, and of what follows at requests."""
    events = event_targets(batch, corpus)
    requests, places = request_targets(batch, corpus, rng)
    event_row_P, request_row_Q = corpus.event_row_E[batch.events[events]], corpus.target_row_T[places]
    targets = np.concatenate([event_row_P, request_row_Q])
    generated = Generated(recommender, corpus, negatives, targets, rng=rng, generator=generator)
    before_PD = states.event_ED[torch.as_tensor(events - 1)]
    bias = recommender.seen_bias
    seen = None if bias is None else seen_before(batch, corpus, events)
    if negatives.is_full:
        next_item = generated.mean_nll(before_PD, event_row_P, seen, bias)
    else:
        next_item = -generated.log_p(before_PD, event_row_P, seen, bias).sum() / max(1, len(events))
    if not len(requests):
        return {"next_item": next_item, "retrieval": torch.zeros(())}
    asked = torch.as_tensor(requests)
    row_RT = event_rows(batch.layout, corpus.event_row_E[batch.events])
    is_same_QT = torch.as_tensor(row_RT[requests] == request_row_Q[:, None])
    pointed_Q = (states.pointed.share_RT[asked] * is_same_QT).sum(-1)
    seen = None if bias is None else seen_by(batch, corpus, requests)
    log_generated_Q = generated.log_p(states.request_RD[asked], request_row_Q, seen, bias)
    log_p_Q = mixture(log_generated_Q, pointed_Q, states.pointed.gate_R[asked])
    weight_Q = torch.as_tensor(1.0 / np.bincount(requests, minlength=1)[requests]).float()
    return {
        "next_item": next_item,
        "retrieval": -(log_p_Q * weight_Q).sum() / max(1, len(np.unique(requests))),
    }


def ranking_loss(states: States, batch: Batch, corpus: Corpus) -> Tensor:
    """Mean log loss of the candidates' outcomes, in nats; 0 for a batch without candidates."""
    if not len(batch.candidates):
        return states.candidate_logit_C.sum()
    label_C = torch.as_tensor(corpus.label_C[batch.candidates])
    return functional.binary_cross_entropy_with_logits(states.candidate_logit_C, label_C)


def forget(batch: Batch, *, share: float, generator: torch.Generator) -> Batch:
    """The batch with a share of its items' identities hidden."""
    return batch._replace(
        identity_E=forget_identities(batch.identity_E, share=share, generator=generator),
        identity_C=forget_identities(batch.identity_C, share=share, generator=generator),
    )
