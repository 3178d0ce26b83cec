"""The Token Factory: every signal of a prompt to soft tokens, with the items' identities mixed in.

Shape suffixes: N rows, K soft tokens, D token width; G segments, O older events, M older events at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm.config import NONE, TokensConfig
from lrm.schema import CANDIDATE, Signal, for_maker
from lrm.tokens.corpus import Corpus
from lrm.tokens.makers import Maker, SharedEmbeddingMaker, event_config, make
from lrm.tokens.memory import MEMORIES
from lrm.tokens.prompt import Older
from lrm.tokens.signals import SignalTensors
from lrm.tokens.vocabulary import Vocabulary, content_signals, history_signals, query_signals

DENSE_ROWS = 50_000
"""Rows of an identity table up to which all of them are moved in every step; of a larger one, those that were read."""


class RequestContext(NamedTuple):
    """The requests that candidates belong to; made by `TokenFactory.request_context`."""

    request_N: Tensor
    """Row of each candidate's request."""
    embedded_RMW: Tensor | None
    """The requests' signals, embedded once for the tokens of both; None where candidates do not read them."""


class TokenFactory(nn.Module):
    """Query, history and candidate makers, and the item vectors that both name an item and predict it.

    An item's vector is its identity row plus a token made of its content, so an item that was never trained, which
    shares identity row 0, is still told apart by its content. In a prompt, the identity joins the first token of an
    event or a candidate. What a candidate is worth depends on who asks, so its network reads the request's signals too.
    """

    def __init__(
        self,
        signals: Sequence[Signal],
        vocabulary: Vocabulary,
        config: TokensConfig,
        *,
        d_model: int,
        names: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Build the makers.

        Args:
            signals: what the prompt is made of.
            vocabulary: fitted on the training split.
            config: sizes and the variant.
            d_model: width of a token.
            names: makes the module that turns identity rows (N,) into vectors (N, D); None: a table of its rows.
        """
        super().__init__()
        events_config = event_config(config)

        def maker(of: Sequence[Signal], config: TokensConfig, n_tokens: int = 1) -> Maker:
            return make(of, vocabulary, config, n_tokens=n_tokens, d_model=d_model)

        self.history = maker(history_signals(signals), events_config, config.n_event_tokens)
        self.query = maker(query_signals(signals), config, config.n_query_tokens) if config.n_query_tokens else None
        self.candidate = maker(for_maker(signals, CANDIDATE), config, config.n_candidate_tokens)
        self.query_to_candidate = (
            _query_to_candidate(self.query, self.candidate) if config.query_in_candidates else None
        )
        self.content = maker(content_signals(signals), events_config) if config.item_identity != "id" else None
        self.d_model = d_model
        self.identity = names() if names is not None else identity_table(vocabulary.n_identities, d_model=d_model)
        self.has_identity = config.item_identity != "content"
        self.memory = (
            MEMORIES[config.memory](n_events=config.memory_events, n_tokens=config.memory_tokens, d_model=d_model)
            if config.memory != NONE
            else None
        )

    def item_vectors(self, identity_N: Tensor, content: SignalTensors) -> Tensor:
        """(N, D): what the decoder's state is compared with to predict an item."""
        identity_ND = self._identity(identity_N)
        return identity_ND if self.content is None else identity_ND + self.content(content).mean(1)

    def history_tokens(self, identity_N: Tensor, signals: SignalTensors) -> Tensor:
        """(N, K, D): the tokens of past events."""
        return self._named(identity_N, self.history(signals))

    def candidate_tokens(
        self, identity_N: Tensor, signals: SignalTensors, context: RequestContext, n_tokens: int | None = None
    ) -> Tensor:
        """(N, K, D): the tokens of items to be scored, or the first `n_tokens` of each."""
        if self.query_to_candidate is None or context.embedded_RMW is None:
            return self._named(identity_N, self.candidate(signals)[:, :n_tokens])
        assert isinstance(self.candidate, SharedEmbeddingMaker)
        query_RH = self.query_to_candidate(context.embedded_RMW.flatten(1))
        tokens_NKD = self.candidate.mix(self.candidate.embed(signals), query_RH[context.request_N])
        return self._named(identity_N, tokens_NKD[:, :n_tokens])

    def request_context(self, query_R: SignalTensors, request_N: Tensor) -> RequestContext:
        """Embed the signals of requests once, where their candidates read them.

        Args:
            query_R: signals of the requests.
            request_N: row of the request of each of N candidates.
        """
        if self.query_to_candidate is None:
            return RequestContext(request_N, None)
        assert isinstance(self.query, SharedEmbeddingMaker)
        return RequestContext(request_N, self.query.embed(query_R))

    def context_of_candidates(self, corpus: Corpus, candidates: np.ndarray) -> RequestContext:
        """Return the context of these candidates of a corpus."""
        requests = np.searchsorted(corpus.candidate_offset_R, candidates, side="right") - 1
        distinct, request_N = np.unique(requests, return_inverse=True)
        return self.request_context(corpus.query_R.take(distinct), torch.as_tensor(request_N))

    def query_tokens(
        self, signals: SignalTensors, n_tokens: int | None = None, embedded_NMW: Tensor | None = None
    ) -> Tensor:
        """(N, K, D): the user and the request, or the first `n_tokens`; K may be 0.

        Args:
            signals: of N requests.
            n_tokens: all where None.
            embedded_NMW: of `request_context`, where it has them.
        """
        if self.query is None:
            return torch.zeros(len(signals.bucket_NF), 0, self.d_model)
        if embedded_NMW is not None:
            assert isinstance(self.query, SharedEmbeddingMaker)
            return self.query.mix(embedded_NMW)[:, :n_tokens]
        tokens_NKD: Tensor = self.query(signals)
        return tokens_NKD[:, :n_tokens]

    def memory_tokens(self, older: Older | None) -> Tensor:
        """(G, N, D): older events, compressed, an event counting by its first token; nothing where there are none."""
        if self.memory is None or older is None:
            return torch.zeros(0, 0, self.d_model)
        first_OD = self.history_tokens(older.identity_O, older.signals_O)[:, 0]
        shape = (older.n_segments, older.n_events)
        tokens_GMD = first_OD.new_zeros(math.prod(shape), first_OD.shape[1]).index_copy(0, older.slot_O, first_OD)
        is_event_GM = torch.zeros(math.prod(shape), dtype=torch.bool).index_fill(0, older.slot_O, True)
        compressed_GND: Tensor = self.memory(tokens_GMD.view(*shape, -1), is_event_GM.view(shape))
        return compressed_GND

    def _identity(self, identity_N: Tensor) -> Tensor:
        identity_ND: Tensor = self.identity(identity_N if self.has_identity else torch.zeros_like(identity_N))
        return identity_ND

    def _named(self, identity_N: Tensor, tokens_NKD: Tensor) -> Tensor:
        """The tokens, the item's identity added to the first of each row."""
        behind = tokens_NKD.shape[1] - 1
        return tokens_NKD + functional.pad(self._identity(identity_N).unsqueeze(1), (0, 0, 0, behind))


def identity_table(n_rows: int, *, d_model: int) -> nn.Embedding:
    """A vector for each identity row; of a large table a step moves only the rows that it read."""
    table = nn.Embedding(n_rows, d_model, sparse=n_rows > DENSE_ROWS)
    nn.init.normal_(table.weight, std=0.05)
    return table


def _query_to_candidate(query: Maker | None, candidate: Maker) -> nn.Linear | None:
    """Map the embedded signals of a request to the hidden layer of its candidates' maker, where both offer that.

    Both together are the first layer over the signals of request and candidate, yet a request is mapped once, however
    many candidates it has.
    """
    if not (isinstance(query, SharedEmbeddingMaker) and isinstance(candidate, SharedEmbeddingMaker)):
        return None
    if not (query.n_inputs and candidate.n_inputs):
        return None
    mapping = nn.Linear(query.n_inputs, candidate.n_hidden, bias=False)
    return mapping.requires_grad_(any(weight.requires_grad for weight in candidate.parameters()))


def forget_identities(identity_N: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Replace a share of identities by the shared row 0, so that row 0 and the content learn to stand alone."""
    is_forgotten_N = torch.rand(identity_N.shape, generator=generator) < share
    return identity_N.masked_fill(is_forgotten_N, 0)
