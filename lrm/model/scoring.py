"""Scores from a trained recommender: the one path that evaluation and the server share.

Shape suffixes: R requests, T events, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.errors import ConfigError
from lrm.features.tables import Tables
from lrm.model.heads import Best, ScoresAll, Wanted
from lrm.model.kv_cache import Prefix, Suffix, decode_over, prefill
from lrm.model.recommender import Recommender
from lrm.model.states import States
from lrm.schema import ITEM_ID
from lrm.tokens.corpus import Corpus
from lrm.tokens.layout import Layout, event_rows
from lrm.tokens.prompt import request_batches
from lrm.tokens.segments import gather, token_batches
from lrm.tokens.vocabulary import rows_of

SCORING_TOKENS = 32_768
"""Valid tokens scored at a time: bounds memory, changes no score."""


class Read(NamedTuple):
    """What was read off one batch."""

    requests: np.ndarray
    """(R,) rows in the corpus."""
    candidates: np.ndarray
    """Rows in the corpus, request by request."""
    layout: Layout
    row_E: np.ndarray
    """Catalogue row of each event."""
    states: States

    def histories(self) -> list[np.ndarray]:
        """For each request, the catalogue row of each event that it sees; -1 for an item that is not there."""
        visible_R = self.layout.visible_R.tolist()
        return [row_T[:n] for row_T, n in zip(event_rows(self.layout, self.row_E), visible_R, strict=True)]

    def seen_rows(self) -> Tensor:
        """(R, T) catalogue row of each event that a request sees, -1 elsewhere."""
        rows_RT = torch.as_tensor(event_rows(self.layout, self.row_E))
        is_hidden_RT = torch.arange(rows_RT.shape[1]) >= self.layout.visible_R.unsqueeze(1)
        return rows_RT.masked_fill(is_hidden_RT, -1)


class Catalogue(NamedTuple):
    """The items that can be recommended, encoded once for many small sets of tables."""

    item_ids: np.ndarray
    """(V,)"""
    prepared: Any
    """What the recommender's head worked out for them."""


class Scorer:
    """A recommender over a set of tables, encoded once.

    Each request reads exactly its latest `max_history` events, offline as online.
    """

    def __init__(
        self,
        recommender: Recommender,
        tables: Tables,
        *,
        catalogue: Catalogue | None = None,
        budget: int | None = None,
    ) -> None:
        """Encode the tables.

        Args:
            recommender: a trained one.
            tables: whose requests are to be answered.
            catalogue: items encoded before; those of the tables are then not read.
            budget: tokens at most of a query and of a candidate, for a model trained with elastic tokens.
        """
        self._recommender, self._shape = recommender.eval(), recommender.prompt_shape(budget)
        self._corpus = recommender.encode(tables)
        self._prepared: Any = None
        self._kept: dict[int, Prefix] = {}
        if catalogue is not None:
            rows_E = rows_of(tables.events[ITEM_ID].to_numpy(), catalogue.item_ids)
            self._corpus = replace(self._corpus, item_ids=catalogue.item_ids, event_row_E=rows_E)
            self._prepared = catalogue.prepared

    @property
    def item_ids(self) -> np.ndarray:
        """(V,) the catalogue, in the order of the columns of `item_scores`."""
        return self._corpus.item_ids

    @property
    def corpus(self) -> Corpus:
        """The tables, encoded."""
        return self._corpus

    def keep_histories(self, *, most_bytes: int) -> None:
        """Decode what each request sees of the past once, for this scorer and those made from it by `over`.

        Args:
            most_bytes: bound of what is held; requests beyond it are decoded whole each time, as without.
        """
        if self._kept or self._shape != self._recommender.prompt_shape():
            return
        n_events = np.minimum(self._corpus.visible_R, self._shape.max_history)
        lengths = self._shape.memory_tokens + n_events * self._shape.per_event
        at_once = SCORING_TOKENS // 8  # the keys and values of all layers are held for these
        for requests in token_batches(lengths, batch_tokens=at_once, rng=None):
            for request, prefix in zip(requests, prefill(self._recommender, self._corpus, requests), strict=True):
                most_bytes -= prefix.n_bytes
                if most_bytes < 0:
                    return
                self._kept[int(request)] = prefix

    def over(self, corpus: Corpus) -> Scorer:
        """The same recommender over other signals of the same requests and items."""
        other, mine = copy(self), self._corpus
        other._corpus = corpus
        if corpus.history_E is not mine.history_E or corpus.event_identity_E is not mine.event_identity_E:
            other._kept = {}
        if corpus.content_V is not mine.content_V or corpus.item_identity_V is not mine.item_identity_V:
            other._prepared = None
        return other

    @torch.inference_mode()
    def item_scores(self, request_ids: np.ndarray) -> np.ndarray:
        """(R, V) float32 log-probabilities that the item follows. Ask for a few hundred requests at a time.

        Raises:
            ConfigError: the recommender's head cannot score the whole catalogue.
        """
        head = self._recommender.head
        if not isinstance(head, ScoresAll):
            raise ConfigError(
                f"the item head {self._recommender.config.model.head!r} finds the best items and cannot score the "
                "whole catalogue; ask for `best_items`"
            )
        distinct, place = np.unique(request_ids, return_inverse=True)
        scores_RV = np.zeros((len(distinct), len(self.item_ids)), dtype=np.float32)
        for read in self._run(request_ids, with_candidates=False):
            log_p_RV = head.scores(read.states, read.seen_rows(), self._catalogue())
            scores_RV[np.searchsorted(distinct, read.requests)] = log_p_RV.cpu().numpy()
        wanted: np.ndarray = scores_RV[place]
        return wanted

    @property
    def scores_all(self) -> bool:
        """Whether the recommender's head can score the whole catalogue."""
        return isinstance(self._recommender.head, ScoresAll)

    @torch.inference_mode()
    def best_items(self, request_ids: np.ndarray, wanted: Sequence[Wanted]) -> list[Best]:
        """The best items for each request, by the scores of all items where the head can give them.

        Args:
            request_ids: distinct, ascending.
            wanted: what each asks for.
        """
        if self.scores_all:
            return [top(scores, one) for scores, one in zip(self.item_scores(request_ids), wanted, strict=True)]
        found: dict[int, Best] = {}
        asked = dict(zip(request_ids.tolist(), wanted, strict=True))
        for read in self._run(request_ids, with_candidates=False):
            numbered = {r: asked[request] for r, request in enumerate(read.requests.tolist())}
            best = self._recommender.head.best(read.states, read.histories(), numbered, self._catalogue())
            found |= {int(read.requests[r]): one for r, one in best.items()}
        return [found[request] for request in request_ids.tolist()]

    def _catalogue(self) -> Any:
        if self._prepared is None:
            self._prepared = self._recommender.head.prepare(self._recommender.factory, self._corpus)
        return self._prepared

    @torch.inference_mode()
    def candidate_logits(self, request_ids: np.ndarray) -> np.ndarray:
        """One float32 log-odds for each candidate row of these requests, in the order of the candidates table."""
        n_candidates = len(self._corpus.candidate_order_C)
        logits = np.full(n_candidates, np.nan, dtype=np.float32)
        is_wanted = np.zeros(n_candidates, dtype=bool)
        for read in self._run(request_ids, with_candidates=True):
            rows = self._corpus.candidate_order_C[read.candidates]
            logits[rows] = read.states.candidate_logit_C.cpu().numpy()
            is_wanted[rows] = True
        return logits[is_wanted]

    def _run(self, request_ids: np.ndarray, *, with_candidates: bool) -> Iterator[Read]:
        corpus = self._corpus if with_candidates else without_candidates(self._corpus)
        is_kept = np.array([int(request) in self._kept for request in request_ids], dtype=bool)
        yield from self._over_kept(corpus, np.unique(request_ids[is_kept]))
        whole = np.unique(request_ids[~is_kept])
        for batch in request_batches(corpus, whole, self._shape, batch_tokens=SCORING_TOKENS):
            yield Read(batch.requests, batch.candidates, batch.layout, batch.row_E, self._recommender(batch))

    def _over_kept(self, corpus: Corpus, requests: np.ndarray) -> Iterator[Read]:
        prefixes, n_candidates = [self._kept[int(request)] for request in requests], np.diff(corpus.candidate_offset_R)
        per_event = self._shape.per_event
        n_past = np.array([prefix.n_memory + len(prefix.row_T) * per_event for prefix in prefixes], dtype=np.int64)
        lengths = n_past + self._shape.per_query + self._shape.per_candidate * n_candidates[requests]
        for rows in token_batches(lengths, batch_tokens=SCORING_TOKENS, rng=None):
            offset, candidates = gather(corpus.candidate_offset_R, requests[rows])
            suffix = Suffix(
                corpus.query_R.take(requests[rows]),
                corpus.candidate_C.take(candidates),
                torch.as_tensor(corpus.candidate_identity_C[candidates]),
                np.diff(offset),
                corpus.request_time_R[requests[rows]],
            )
            chosen = [prefixes[row] for row in rows]
            states, layout = decode_over(self._recommender, chosen, suffix)
            row_E = np.concatenate([prefix.row_T for prefix in chosen])
            yield Read(requests[rows], candidates, layout, row_E, states)


def top(scores: np.ndarray, wanted: Wanted) -> Best:
    """The best items of one request by the scores (V,) of all; equal scores in the order of the catalogue."""
    rows = np.arange(len(scores)) if wanted.only is None else np.unique(wanted.only)
    if wanted.without is not None:
        rows = np.setdiff1d(rows, wanted.without)
    if wanted.k < len(rows):
        threshold = np.partition(scores[rows], len(rows) - wanted.k)[len(rows) - wanted.k]
        rows = rows[scores[rows] >= threshold]
    chosen = rows[np.argsort(-scores[rows], kind="stable")][: wanted.k]
    return Best(chosen, scores[chosen])


def without_candidates(corpus: Corpus) -> Corpus:
    """The corpus with every request's candidate list empty."""
    return replace(corpus, candidate_offset_R=np.zeros_like(corpus.candidate_offset_R))
