"""A softmax over the whole catalogue, mixed with a copy of the history: what the heads that score every item share.

The probability that an item follows is a softmax over the logits of all items. With a copy head (`_copy_head`) it is
mixed with a share of the items of the user's own history; without, one learned number is added to the logits of those
items: it shuts them out where no item comes twice. Heads of this form differ in the logits alone (`Similarity`).

Of the mixture only items of the history gain; all others keep the order of their logits. So the best items are among
the best logits and the history, and only those need a score.

Shape suffixes: R requests, P predictions, V items of the catalogue, S items that may be among the best, T events,
D model width, W width of an item's row, Q width of a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lrm.config import RunConfig
from lrm.model.heads import Best, Wanted
from lrm.model.heads._copy_head import REACH, CopyHead, Pointed, mixture, nowhere, share_of_items
from lrm.model.heads._cross_entropy import Seen
from lrm.model.heads._likelihood import SampledLearner, negatives_of
from lrm.model.states import States
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory
from lrm.tokens.layout import Layout

CATALOGUE_CHUNK = 16_384
SCORED_AT_ONCE = 32_000_000
"""Logits computed at a time: 128 MB."""


class Similarity(Protocol):
    """How well items fit states: the logits of the softmax."""

    def rows(self, vector_VD: Tensor) -> Tensor:
        """(V, W) what is compared of each item, from the vectors of `TokenFactory.item_vectors`."""

    def queries(self, state_PD: Tensor) -> Tensor:
        """(P, Q) what is compared of each state."""

    def all_pairs(self, query_PQ: Tensor, item_VW: Tensor) -> Tensor:
        """(P, V) the logit of every item for every query."""

    def pairs(self, query_PQ: Tensor, item_PW: Tensor) -> Tensor:
        """(P,) the logit of one item for each query."""

    def some(self, query_Q: Tensor, item_SW: Tensor) -> Tensor:
        """(S,) the logits of some items for one query."""

    def mean_nll(
        self, query_PQ: Tensor, item_VW: Tensor, class_P: Tensor, seen: Seen | None, bias: Tensor | None
    ) -> Tensor:
        """The mean negative log-likelihood in nats of each query's item under the softmax over all; 0 without queries.

        Args:
            query_PQ: the queries.
            item_VW: the whole catalogue.
            class_P: row of each query's item.
            seen: the items of each query's history.
            bias: what the logits of those gain.
        """

    def penalty(self, query_PQ: Tensor, item_PW: Tensor) -> Tensor | None:
        """An auxiliary loss of training over queries and their items; None: there is none."""


class Catalogue(NamedTuple):
    """The items of a corpus."""

    item_VW: Tensor
    index: Any = None
    """`_index.Index`, or None: every item gets its logit."""


class _History(NamedTuple):
    """What a request points at."""

    seen: np.ndarray
    """Catalogue rows, ascending."""
    share: np.ndarray
    """Share of each, float32."""
    gate: Tensor


class CatalogueSoftmax(nn.Module):
    """The head, given the similarity; see `lrm.model.heads.Head` and `ScoresAll` for its methods."""

    def __init__(self, config: RunConfig, similarity: Similarity, *, copy_head: bool) -> None:
        super().__init__()
        self.similarity, self._training_config = similarity, config.training
        self.copy_head = CopyHead(d_model=config.model.d_model) if copy_head else None
        self.seen = None if copy_head else nn.Parameter(torch.zeros(()))

    @property
    def reads_events(self) -> bool:
        """Whether requests see the states of their past events: the copy head does."""
        return self.copy_head is not None

    @property
    def seen_bias(self) -> Tensor | None:
        """What the logits of items in the history gain, where there is no copy head."""
        return None if self.seen is None else REACH * self.seen

    def read(self, request_RD: Tensor, event_ED: Tensor, layout: Layout) -> Pointed:
        """Which of its own past events each request points at."""
        pointed: Pointed = self.copy_head(request_RD, event_ED, layout) if self.copy_head else nowhere(layout)
        return pointed

    def learner(self, factory: TokenFactory, corpus: Corpus) -> SampledLearner:
        """Draw negatives by the popularity of the training events."""
        return SampledLearner(self, factory, corpus, negatives_of(corpus, self._training_config))

    @property
    def id_dropout(self) -> float:
        """Share of item identities hidden in a training step."""
        return self._training_config.id_dropout

    @torch.inference_mode()
    def prepare(self, factory: TokenFactory, corpus: Corpus) -> Catalogue:
        """Compute what is kept of every item."""
        rows = np.arange(len(corpus.item_ids))
        chunks = [rows[i : i + CATALOGUE_CHUNK] for i in range(0, len(rows), CATALOGUE_CHUNK)]
        vectors = (
            factory.item_vectors(torch.as_tensor(corpus.item_identity_V[chunk]), corpus.content_V.take(chunk))
            for chunk in chunks
        )
        return Catalogue(torch.cat([self.similarity.rows(vector_VD) for vector_VD in vectors]))

    def scores(self, states: States, row_RT: Tensor, catalogue: Catalogue) -> Tensor:
        """(R, V) log-probabilities that each item follows."""
        pointed, n_items = Pointed(*states.head), len(catalogue.item_VW)
        share_RV = share_of_items(pointed.share_RT, row_RT, n_items=n_items)
        logit_RV = self.similarity.all_pairs(self.similarity.queries(states.request_RD), catalogue.item_VW)
        if self.seen_bias is not None:
            logit_RV = logit_RV + self.seen_bias * _seen_items(row_RT, n_items=n_items)
        return mixture(logit_RV.log_softmax(-1), share_RV, pointed.gate_R.unsqueeze(-1))

    @torch.inference_mode()
    def best(
        self, states: States, rows: Sequence[np.ndarray], wanted: Mapping[int, Wanted], catalogue: Catalogue
    ) -> dict[int, Best]:
        """The best items for some of the requests, by the logits of all items."""
        found: dict[int, Best] = {}
        numbers = list(wanted)
        at_once = max(1, SCORED_AT_ONCE // len(catalogue.item_VW))
        for first in range(0, len(numbers), at_once):
            requests = numbers[first : first + at_once]
            query_RQ = self.similarity.queries(states.request_RD[requests])
            logit_RV = self.similarity.all_pairs(query_RQ, catalogue.item_VW)
            for r, logit_V in zip(requests, logit_RV, strict=True):
                history = pointed_at(states, r, rows[r])
                if self.seen_bias is not None:
                    logit_V[torch.as_tensor(history.seen)] += self.seen_bias
                chosen_S = _may_be_best(logit_V, history.seen, wanted[r])
                logit_S = logit_V[torch.as_tensor(chosen_S)]
                found[r] = ranked(chosen_S, logit_S - logit_V.logsumexp(-1), history, wanted[r].k)
        return found

    def logits_of(self, item_VW: Tensor, query_Q: Tensor, seen: np.ndarray, rows_S: np.ndarray) -> Tensor:
        """(S,) the logits of some items for one request whose history holds the rows `seen`."""
        logit_S = self.similarity.some(query_Q, item_VW[torch.as_tensor(rows_S)])
        if self.seen_bias is not None:
            logit_S[torch.as_tensor(np.isin(rows_S, seen))] += self.seen_bias
        return logit_S


def _seen_items(row_RT: Tensor, *, n_items: int) -> Tensor:
    """(R, V) 1 where the history that a request sees holds the item, else 0; -1 is no event."""
    return (share_of_items(torch.ones(row_RT.shape), row_RT, n_items=n_items) > 0).float()


def pointed_at(states: States, request: int, row_T: np.ndarray) -> _History:
    """What one request points at, the events of an item together."""
    pointed, is_item_T = Pointed(*states.head), row_T >= 0
    share_T = pointed.share_RT[request, : len(row_T)].cpu().numpy()[is_item_T]
    seen, event = np.unique(row_T[is_item_T], return_inverse=True)
    share = np.bincount(event, weights=share_T, minlength=len(seen)).astype(np.float32)
    return _History(seen, share, pointed.gate_R[request])


def ranked(chosen_S: np.ndarray, log_generated_S: Tensor, history: _History, k: int) -> Best:
    """The k best of some items, from their log-probabilities under the softmax."""
    seen, share = history.seen, history.share
    place_S = np.searchsorted(seen, chosen_S).clip(max=max(0, len(seen) - 1))
    share_S = np.where(seen[place_S] == chosen_S, share[place_S], 0.0) if len(seen) else np.zeros(len(chosen_S))
    score_S = mixture(log_generated_S, torch.as_tensor(share_S.astype(np.float32)), history.gate).cpu().numpy()
    order = np.argsort(-score_S, kind="stable")[:k]
    return Best(chosen_S[order], score_S[order])


def allowed(wanted: Wanted, likely: np.ndarray) -> np.ndarray:
    """(S,) catalogue rows, ascending, that a request may be shown: its own choice, or what is likely."""
    return np.setdiff1d(likely if wanted.only is None else wanted.only, excluded(wanted))


def excluded(wanted: Wanted) -> np.ndarray:
    """Catalogue rows that must not be shown."""
    return np.zeros(0, dtype=np.int64) if wanted.without is None else wanted.without


def _may_be_best(logit_V: Tensor, seen: np.ndarray, wanted: Wanted) -> np.ndarray:
    """(S,) catalogue rows, ascending, among which the k best are."""
    without = excluded(wanted)
    if wanted.only is not None or wanted.k >= len(logit_V):
        return allowed(wanted, np.arange(len(logit_V)))
    if len(without):
        logit_V = logit_V.index_fill(0, torch.as_tensor(without), float("-inf"))
    kth = logit_V.topk(wanted.k, sorted=False).values.min()
    likely = torch.nonzero(logit_V >= kth).squeeze(-1).cpu().numpy()
    return allowed(wanted, np.union1d(likely, seen))
