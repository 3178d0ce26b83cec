"""Name an item by a few codes of its content, and recommend by writing codes (TIGER, 2305.05065).

Items that are alike share their first codes, so what is learned of one helps the others, and a new item has codes
before anybody has chosen it. The codes are residual k-means (`_residual_kmeans`) of the items' content
(`_item_content`), fitted once before training. In prompts an item is the sum of its codes' embeddings. A small decoder
writes the codes of the next item; a beam search in the tree of the catalogue's codes finds the best items and never
leaves it.

The score of an item is the log-probability of its codes among all sequences of codes. Not every sequence is an item, so
the probabilities of a catalogue sum to at most 1. The whole catalogue is not scored: an item that the beams do not
reach is not generated. An item without codes is never generated, and has the score `NEVER` where it is asked for by
name: where items have no signal, codes are of the company that items keep in training histories, and an item without a
training event has none.

Shape suffixes: R requests, P predictions, V items of the catalogue, L codes of an item with its index, K codes of a
level, W width of a vector, S items to be scored, T events, G segments, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lrm.errors import ConfigError
from lrm.model.attention import pad
from lrm.model.heads import Best, Design, Wanted
from lrm.model.heads._code_decoder import CodeDecoder, Predictions
from lrm.model.heads._code_names import NO_CODE, CodeNames, health, scaled_codes, used_codes, with_index
from lrm.model.heads._code_trie import Trie, beam_search, build_trie
from lrm.model.heads._item_content import company_vectors, content_vectors, content_width, has_content
from lrm.model.heads._residual_kmeans import fit_codebooks
from lrm.model.states import States
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import TokenFactory
from lrm.tokens.layout import Layout
from lrm.tokens.prompt import Batch
from lrm.tokens.vocabulary import rows_of

NEVER = -50.0
"""Score of an item without codes."""
BEAMS_AT_ONCE = 4096
MAX_WIDTH = 1024
"""Beams of a request; who asks for more items has every item scored."""


class Past(NamedTuple):
    """The events that requests see."""

    event_GTD: Tensor
    segment_R: Tensor
    visible_R: Tensor


class Catalogue(NamedTuple):
    """The codes of a corpus' items."""

    code_VL: np.ndarray
    """-1 for an item without codes."""
    trie: Trie | None
    """Of the items with codes; None: there are none."""


def item_names(design: Design, *, levels: int = 3, codes: int = 0, **_: object) -> nn.Module:
    """Make the module that names items in prompts."""
    sizes = _sizes(design, levels=levels, codes=codes)
    n_identities, d_model = design.vocabulary.n_identities, design.config.model.d_model
    return CodeNames(n_identities=n_identities, sizes=sizes, d_model=d_model)


class Head(nn.Module):
    """Codes, written one after the other; see `lrm.model.heads.Head` and `Fitted` for its methods."""

    def __init__(
        self, design: Design, *, levels: int = 3, codes: int = 0, decoder_layers: int = 1, beam: int = 50
    ) -> None:
        """Build the head.

        Args:
            design: what it is built for.
            levels: of residual k-means; an item has one code more, its index.
            codes: of a level; 0: as many as suit the catalogue.
            decoder_layers: of the decoder that writes codes.
            beam: beams of a request for few items.
        """
        super().__init__()
        if min(levels, decoder_layers, beam) < 1 or codes < 0:
            raise ConfigError("head_options levels, decoder_layers and beam must be positive, and codes at least 0")
        model, self._vocabulary, self._beam = design.config.model, design.vocabulary, beam
        self._has_content = has_content(design.signals)
        sizes = _sizes(design, levels=levels, codes=codes)
        self._n_codes, width = sizes[0], content_width(design.signals)
        self.decoder = CodeDecoder(
            sizes=sizes,
            d_model=model.d_model,
            n_heads=model.n_heads,
            n_layers=decoder_layers,
            dropout=model.dropout,
        )
        self.codebook_LKW: Tensor
        self.mean_W: Tensor
        self.deviation_W: Tensor
        self.code_VL: Tensor
        self.register_buffer("codebook_LKW", torch.zeros(levels, self._n_codes, width))
        self.register_buffer("mean_W", torch.zeros(width))
        self.register_buffer("deviation_W", torch.ones(width))
        self.register_buffer("code_VL", torch.full((len(design.vocabulary.item_ids), levels + 1), NO_CODE))

    @property
    def reads_events(self) -> bool:
        """Requests see the states of their past events."""
        return True

    @property
    def is_fitted(self) -> bool:
        """Whether any item has codes."""
        return bool((self.code_VL >= 0).any())

    def fit(self, factory: TokenFactory, corpus: Corpus, *, seed: int) -> None:
        """Code the catalogue of the training corpus, the items with most training events first."""
        count_V = np.bincount(corpus.event_row_E[corpus.event_is_train_E], minlength=len(corpus.item_ids))
        if self._has_content:
            raw_VW = content_vectors(corpus.content_V)
            known_VW = np.ma.masked_invalid(raw_VW)
            deviation_W = known_VW.std(0).filled(0.0)
            self.mean_W.copy_(torch.as_tensor(known_VW.mean(0).filled(0.0)))
            self.deviation_W.copy_(torch.as_tensor(np.where(deviation_W > 1e-6, deviation_W, 1.0)))
            vector_VW, rows = self._standardised(raw_VW), np.arange(len(corpus.item_ids))
        else:
            vector_VW, rows = company_vectors(corpus, seed=seed), np.flatnonzero(count_V)
        rows = rows[np.argsort(-count_V[rows], kind="stable")]
        n_levels = len(self.codebook_LKW)
        codebook = fit_codebooks(vector_VW[np.sort(rows)], n_levels=n_levels, n_codes=self._n_codes, seed=seed)
        self.codebook_LKW.copy_(torch.as_tensor(codebook))
        code_VL = np.full((len(corpus.item_ids), n_levels + 1), NO_CODE, dtype=np.int64)
        code_VL[rows] = with_index(vector_VW[rows], codebook, n_indices=self._n_codes, used=used_codes(code_VL[:0]))
        known = rows_of(self._vocabulary.item_ids, corpus.item_ids)
        self.code_VL.copy_(torch.as_tensor(np.where(known[:, None] >= 0, code_VL[known], NO_CODE)))
        names, trained = factory.identity, rows_of(self._vocabulary.trained_items, self._vocabulary.item_ids)
        assert isinstance(names, CodeNames), "item_names made it"
        names.code_NL[1:] = self.code_VL[torch.as_tensor(trained)]

    def facts(self) -> dict[str, float]:
        """The health of the codes."""
        code_VL = self.code_VL.cpu().numpy()
        return health(code_VL[code_VL[:, 0] >= 0], self._n_codes) | {"codes_of_a_level": float(self._n_codes)}

    def read(self, request_RD: Tensor, event_ED: Tensor, layout: Layout) -> Past:  # noqa: ARG002 - requests are starts
        """The events by segment."""
        return Past(pad(event_ED, layout.event_slot_E, layout.events_shape), layout.segment_R, layout.visible_R)

    def learner(self, factory: TokenFactory, corpus: Corpus) -> CodeLearner:  # noqa: ARG002 - codes need no factory
        """Look up the codes of the corpus' items."""
        return CodeLearner(self, self._codes(corpus))

    def prepare(self, factory: TokenFactory, corpus: Corpus) -> Catalogue:  # noqa: ARG002
        """Code the items, and build the tree of their codes."""
        code_VL = self._codes(corpus)
        rows = np.flatnonzero(code_VL[:, 0] >= 0)
        return Catalogue(code_VL, build_trie(code_VL[rows], rows) if len(rows) else None)

    @torch.inference_mode()
    def best(
        self,
        states: States,
        rows: Sequence[np.ndarray],  # noqa: ARG002 - nothing is copied from the history
        wanted: Mapping[int, Wanted],
        catalogue: Catalogue,
    ) -> dict[int, Best]:
        """The best items for some of the requests: by beams, or where items are named or very many, one by one."""
        found, widths = {}, dict[int, list[int]]()
        n_coded = 0 if catalogue.trie is None else len(catalogue.trie.row_V)
        for r, asked in wanted.items():
            width = min(n_coded, max(self._beam, 1 << max(0, int(asked.k) - 1).bit_length()))
            if asked.only is None and width <= MAX_WIDTH:
                widths.setdefault(width, []).append(r)
            else:
                found[r] = self._scored(states, r, asked, catalogue)
        for width, requests in widths.items():
            at_once = max(1, BEAMS_AT_ONCE // max(1, width))
            for first in range(0, len(requests), at_once):
                found |= self._searched(states, requests[first : first + at_once], wanted, catalogue, width)
        return found

    def _searched(
        self, states: States, requests: list[int], wanted: Mapping[int, Wanted], catalogue: Catalogue, width: int
    ) -> dict[int, Best]:
        trie, past = catalogue.trie, Past(*states.head)
        if trie is None:
            return {r: Best(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for r in requests}
        is_shown_RV = None
        if any(wanted[r].without is not None for r in requests):
            is_shown_RV = np.stack([~np.isin(trie.row_V, _without(wanted[r])) for r in requests])
        event_RTD = past.event_GTD[past.segment_R[requests]]

        def step(code_RBL: Tensor) -> Tensor:
            n_beams = code_RBL.shape[1]
            start_PD = states.request_RD[requests].repeat_interleave(n_beams, dim=0)
            segment_P = torch.arange(len(requests)).repeat_interleave(n_beams)
            predictions = Predictions(start_PD, segment_P, past.visible_R[requests].repeat_interleave(n_beams))
            log_p_PK = self.decoder.next_code(predictions, event_RTD, code_RBL.flatten(0, 1))
            return log_p_PK.view(len(requests), n_beams, -1)

        row_RB, score_RB = beam_search(step, trie, n_requests=len(requests), width=width, is_shown_RV=is_shown_RV)
        return {
            r: _ordered(row_B[np.isfinite(score_B)], score_B[np.isfinite(score_B)], wanted[r].k)
            for r, row_B, score_B in zip(requests, row_RB, score_RB, strict=True)
        }

    def _scored(self, states: States, request: int, wanted: Wanted, catalogue: Catalogue) -> Best:
        """The best of some items, each scored."""
        rows = np.flatnonzero(catalogue.code_VL[:, 0] >= 0) if wanted.only is None else np.unique(wanted.only)
        rows, past = np.setdiff1d(rows, _without(wanted)), Past(*states.head)
        segment = past.segment_R[request]
        event_1TD = past.event_GTD[segment : segment + 1]
        scores = [np.zeros(0, dtype=np.float32)]
        for first in range(0, len(rows), MAX_WIDTH):
            chosen = rows[first : first + MAX_WIDTH]
            start_SD = states.request_RD[request].expand(len(chosen), -1)
            visible_S = past.visible_R[request].expand(len(chosen))
            predictions = Predictions(start_SD, torch.zeros(len(chosen), dtype=torch.int64), visible_S)
            scores.append(self.log_p(predictions, event_1TD, catalogue.code_VL[chosen]).cpu().numpy())
        return _ordered(rows, np.concatenate(scores), wanted.k)

    def log_p(self, predictions: Predictions, event_GTD: Tensor, code_PL: np.ndarray) -> Tensor:
        """(P,) log-probability of the codes of items; `NEVER` of an item without codes."""
        code = torch.as_tensor(code_PL)
        log_p_P = self.decoder.log_p(predictions, event_GTD, code.clamp(min=0))
        return torch.where(code[:, 0] >= 0, log_p_P, NEVER)

    def _codes(self, corpus: Corpus) -> np.ndarray:
        """(V, L) the codes of a corpus' items: those of training, and of others by their content."""
        known = rows_of(corpus.item_ids, self._vocabulary.item_ids)
        own_VL = self.code_VL.cpu().numpy()
        code_VL = np.where(known[:, None] >= 0, own_VL[known], NO_CODE) if len(own_VL) else np.zeros((0, 1), np.int64)
        new = np.flatnonzero(known < 0)
        if len(new) and self._has_content and self.is_fitted:
            vector_VW, codebook = self._standardised(content_vectors(corpus.content_V)), self.codebook_LKW.cpu().numpy()
            used = used_codes(own_VL[own_VL[:, 0] >= 0])
            code_VL[new] = with_index(vector_VW[new], codebook, n_indices=self._n_codes, used=used)
        return code_VL

    def _standardised(self, raw_VW: np.ndarray) -> np.ndarray:
        standard: np.ndarray = np.nan_to_num((raw_VW - self.mean_W.cpu().numpy()) / self.deviation_W.cpu().numpy())
        return standard.astype(np.float32)


class CodeLearner:
    """Training of the head on a corpus."""

    def __init__(self, head: Head, code_VL: np.ndarray) -> None:
        self._head, self._code_VL = head, code_VL

    def step(
        self,
        batch: Batch,
        targets: np.ndarray,  # noqa: ARG002 - nothing is drawn
        *,
        rng: np.random.Generator,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> CodeLikelihood:
        """Nothing is drawn: a code is told apart from all codes of its level."""
        return CodeLikelihood(self._head, batch, self._code_VL)


class CodeLikelihood:
    """Token cross-entropy of items' codes, the earlier codes of an item given."""

    def __init__(self, head: Head, batch: Batch, code_VL: np.ndarray) -> None:
        self._head, self._batch, self._code_VL = head, batch, code_VL

    def next_item(self, states: States, events: np.ndarray, row_P: np.ndarray) -> Tensor:
        """The mean over events of the sum over codes, in nats; 0 without events."""
        before_P, past, layout = torch.as_tensor(events - 1), Past(*states.head), self._batch.layout
        slot_P, n_places = layout.event_slot_E[before_P], layout.events_shape[1]
        predictions = Predictions(states.event_ED[before_P], slot_P // n_places, slot_P % n_places + 1)
        log_p_P = self._head.log_p(predictions, past.event_GTD, self._code_VL[row_P])
        return -log_p_P.sum() / max(1, len(events))

    def at_requests(self, states: States, requests: np.ndarray, row_Q: np.ndarray) -> Tensor:
        """(Q,) log-probabilities that these items follow these requests."""
        request_Q, past = torch.as_tensor(requests), Past(*states.head)
        predictions = Predictions(states.request_RD[request_Q], past.segment_R[request_Q], past.visible_R[request_Q])
        return self._head.log_p(predictions, past.event_GTD, self._code_VL[row_Q])


def _sizes(design: Design, *, levels: int, codes: int) -> tuple[int, ...]:
    """Codes of each level, and of the index."""
    return (codes or scaled_codes(len(design.vocabulary.item_ids)),) * (levels + 1)


def _without(wanted: Wanted) -> np.ndarray:
    return np.zeros(0, dtype=np.int64) if wanted.without is None else wanted.without


def _ordered(rows: np.ndarray, scores: np.ndarray, k: int) -> Best:
    """The k best, best first; equal scores in the order of the catalogue."""
    order = np.lexsort((rows, -scores))[:k]
    return Best(rows[order], scores[order])
