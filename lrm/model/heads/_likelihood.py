"""Log-probabilities of a step's targets under a softmax: against all items, or against a fresh sample.

Shape suffixes: E events, P predictions, Q predictions at requests, T events of the longest segment, C drawn items,
W width of an item's row, V items of the catalogue, S items seen before. (P, Q) is predictions by a query's width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lrm.config import TrainingConfig
from lrm.model.heads._copy_head import Pointed, mixture
from lrm.model.heads._cross_entropy import Seen
from lrm.model.states import States
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory, forget_identities
from lrm.tokens.layout import event_rows
from lrm.tokens.prompt import Batch

if TYPE_CHECKING:
    from lrm.model.heads._softmax import CatalogueSoftmax

SAMPLING_POWER = 0.75
"""Negatives are drawn in proportion to popularity to this power (word2vec, 1310.4546)."""


class Negatives:
    """The items a prediction is told apart from: all of a small catalogue, a fresh sample of a large one.

    A sample is corrected for how often each item is drawn (importance sampling, Bengio and Senecal 2008).
    """

    def __init__(
        self, item_counts_V: np.ndarray, *, n_negatives: int, full_up_to: int, power: float = SAMPLING_POWER
    ) -> None:
        weight_V = (item_counts_V + 1e-3) ** power
        self._share_V = weight_V / weight_V.sum()
        self.n_items = len(item_counts_V)
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


def negatives_of(corpus: Corpus, config: TrainingConfig) -> Negatives:
    """The negatives of a corpus, by how often each item stands in a training event."""
    counts_V = np.bincount(corpus.event_row_E[corpus.event_is_train_E], minlength=len(corpus.item_ids))
    return Negatives(
        counts_V, n_negatives=config.n_negatives, full_up_to=config.full_softmax_items, power=config.negatives_power
    )


class SampledLearner:
    """Training of a softmax head on a corpus; see `lrm.model.heads.Learner`."""

    def __init__(self, head: CatalogueSoftmax, factory: TokenFactory, corpus: Corpus, negatives: Negatives) -> None:
        self._head, self._factory, self._corpus, self._negatives = head, factory, corpus, negatives

    def step(
        self,
        batch: Batch,
        targets: np.ndarray,
        *,
        rng: np.random.Generator,
        generator: torch.Generator | None = None,
    ) -> SoftmaxLikelihood:
        """Draw negatives and compute the rows of all items of the step once; hide a share of their identities."""
        corpus = self._corpus
        drawn, log_q = self._negatives.draw(rng)
        rows = np.union1d(drawn, targets)
        identity_C = torch.as_tensor(corpus.item_identity_V[rows])
        if generator is not None:
            identity_C = forget_identities(identity_C, share=self._head.id_dropout, generator=generator)
        item_CW = self._head.similarity.rows(self._factory.item_vectors(identity_C, corpus.content_V.take(rows)))
        items = StepItems(rows, drawn, log_q, item_CW, is_full=self._negatives.is_full)
        return SoftmaxLikelihood(self._head, batch, items, n_items=self._negatives.n_items)


class StepItems:
    """The targets and negatives of a step."""

    def __init__(
        self, rows: np.ndarray, drawn: np.ndarray, log_q: np.ndarray, item_CW: Tensor, *, is_full: bool
    ) -> None:
        self.rows, self.item_CW, self.is_full = rows, item_CW, is_full
        self.drawn = torch.as_tensor(np.searchsorted(rows, drawn))
        self.log_q = torch.as_tensor(log_q)

    def places(self, row_P: np.ndarray) -> Tensor:
        """(P,) place of catalogue rows among the items of the step."""
        return torch.as_tensor(np.searchsorted(self.rows, row_P))

    def seen(self, seen: Seen, n: int) -> Tensor:
        """(P, C) 1 for the items that each of `n` histories holds, else 0."""
        rows_S = seen.class_S.cpu().numpy()
        class_S = np.searchsorted(self.rows, rows_S).clip(max=len(self.rows) - 1)
        is_here_S = torch.as_tensor(self.rows[class_S] == rows_S)
        is_seen_PC = torch.zeros(n, len(self.rows))
        is_seen_PC[seen.row_S[is_here_S], torch.as_tensor(class_S)[is_here_S]] = 1.0
        return is_seen_PC


class SoftmaxLikelihood:
    """What a softmax head says of the targets of one step; see `lrm.model.heads.Likelihood`."""

    def __init__(self, head: CatalogueSoftmax, batch: Batch, items: StepItems, *, n_items: int) -> None:
        self._head, self._batch, self._items, self.n_items = head, batch, items, n_items

    def next_item(self, states: States, events: np.ndarray, row_P: np.ndarray) -> Tensor:
        """The mean negative log-probability in nats of the items of events; 0 without events."""
        head, items = self._head, self._items
        query_PQ, bias = head.similarity.queries(states.event_ED[torch.as_tensor(events - 1)]), head.seen_bias
        seen = None if bias is None else seen_before(self._batch, events)
        if items.is_full:
            nll = head.similarity.mean_nll(query_PQ, items.item_CW, torch.as_tensor(row_P), seen, bias)
        else:
            nll = -self.log_p(query_PQ, row_P, seen, bias).sum() / max(1, len(events))
        penalty = head.similarity.penalty(query_PQ, items.item_CW[items.places(row_P)]) if head.training else None
        return nll if penalty is None else nll + penalty

    def at_requests(self, states: States, requests: np.ndarray, row_Q: np.ndarray) -> Tensor:
        """(Q,) log-probabilities that these items follow these requests."""
        batch, bias = self._batch, self._head.seen_bias
        request_Q, pointed = torch.as_tensor(requests), Pointed(*states.head)
        row_RT = event_rows(batch.layout, batch.row_E)
        is_same_QT = torch.as_tensor(row_RT[requests] == row_Q[:, None])
        pointed_Q = (pointed.share_RT[request_Q] * is_same_QT).sum(-1)
        seen = None if bias is None else seen_by(batch, requests)
        query_PQ = self._head.similarity.queries(states.request_RD[request_Q])
        log_generated_Q = self.log_p(query_PQ, row_Q, seen, bias)
        return mixture(log_generated_Q, pointed_Q, pointed.gate_R[request_Q])

    def pair_logits(
        self, states: States, events: np.ndarray, row_P: np.ndarray, *, n_negatives: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Score the item of each event and negatives drawn for it; see `lrm.model.heads.ScoresPairs`."""
        items, similarity, bias = self._items, self._head.similarity, self._head.seen_bias
        query_PQ = similarity.queries(states.event_ED[torch.as_tensor(events - 1)])
        class_P, place_P = items.places(row_P), torch.arange(len(row_P))
        negative_PK = items.drawn[torch.as_tensor(rng.integers(0, len(items.drawn), (len(row_P), n_negatives)))]
        logit_PC = similarity.all_pairs(query_PQ, items.item_CW)
        if bias is not None:
            logit_PC = logit_PC + bias * items.seen(seen_before(self._batch, events), len(row_P))
        is_own_PK = negative_PK == class_P.unsqueeze(-1)
        return logit_PC[place_P, class_P], logit_PC.gather(1, negative_PK).masked_fill(is_own_PK, float("-inf"))

    def log_p(
        self, query_PQ: Tensor, row_P: np.ndarray, seen: Seen | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(P,) log-probability of each query's own target, which a sample holds exactly once: as itself.

        Args:
            query_PQ: the queries.
            row_P: catalogue rows of their targets.
            seen: what the history of each holds.
            bias: what the logits of those items gain.
        """
        items, similarity = self._items, self._head.similarity
        class_P = items.places(row_P)
        logit_P = similarity.pairs(query_PQ, items.item_CW[class_P])
        logit_PC = similarity.all_pairs(query_PQ, items.item_CW[items.drawn]) - items.log_q
        if seen is not None and bias is not None:
            gain_PC = bias * items.seen(seen, len(row_P))
            logit_P = logit_P + gain_PC[torch.arange(len(row_P)), class_P]
            logit_PC = logit_PC + gain_PC[:, items.drawn]
        if items.is_full:
            return logit_P - logit_PC.logsumexp(-1)
        others_PC = logit_PC.masked_fill(items.drawn == class_P.unsqueeze(-1), float("-inf"))
        return logit_P - torch.logaddexp(others_PC.logsumexp(-1), logit_P)


def seen_before(batch: Batch, events: np.ndarray) -> Seen:
    """List the items before each event in its segment, each once, at its first place. Events are rows of the batch."""
    start_E = np.maximum.accumulate(np.where(batch.is_first_E, np.arange(len(batch.events)), 0))
    return _seen_between(batch, start_E[events], events)


def seen_by(batch: Batch, requests: np.ndarray) -> Seen:
    """List the items that each request of the batch sees, each once."""
    layout = batch.layout
    segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    start_Q = np.searchsorted(segment_E, layout.segment_R.cpu().numpy()[requests])
    return _seen_between(batch, start_Q, start_Q + layout.visible_R.cpu().numpy()[requests])


def _seen_between(batch: Batch, start_P: np.ndarray, end_P: np.ndarray) -> Seen:
    """List the items of stretches of the batch's events; each stretch begins where a segment begins."""
    slot_E = batch.layout.event_slot_E
    first_E = batch.layout.first_GT.flatten()[slot_E]
    is_new_E = (first_E == slot_E % batch.layout.events_shape[1]).cpu().numpy()
    new, before_E = np.flatnonzero(is_new_E), np.concatenate([[0], np.cumsum(is_new_E)])
    begin_P, count_P = before_E[start_P], before_E[end_P] - before_E[start_P]
    offset = np.concatenate([[0], np.cumsum(count_P)])
    place = np.arange(offset[-1]) + np.repeat(begin_P - offset[:-1], count_P)
    row = np.repeat(np.arange(len(start_P)), count_P)
    return Seen(torch.as_tensor(offset), torch.as_tensor(batch.row_E[new[place]]), torch.as_tensor(row))
