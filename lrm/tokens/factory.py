"""The Token Factory: every signal of a prompt to soft tokens, with the items' identities mixed in.

Shape suffixes: N rows, K soft tokens, D token width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrm.config import TokensConfig
from lrm.schema import CANDIDATE, HISTORY, QUERY, Signal, for_maker
from lrm.tokens.maker import TokenMaker
from lrm.tokens.signals import SignalTensors
from lrm.tokens.vocabulary import GAP_HOURS, Vocabulary, content_signals


class TokenFactory(nn.Module):
    """Query, history and candidate makers, and the item vectors that both name an item and predict it.

    An item's vector is its identity row plus a token made of its content, so an item that was never trained, which
    shares identity row 0, is still told apart by its content.
    """

    def __init__(
        self, signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, d_model: int
    ) -> None:
        super().__init__()

        def maker(of: Sequence[Signal], n_tokens: int = 1) -> TokenMaker:
            return TokenMaker(of, vocabulary, config, n_tokens=n_tokens, d_model=d_model)

        self.history = maker(history_signals(signals))
        self.query = maker(query_signals(signals), config.n_query_tokens) if config.n_query_tokens else None
        self.candidate = maker(for_maker(signals, CANDIDATE))
        self.content = maker(content_signals(signals))
        self.identity = nn.Embedding(vocabulary.n_identities, d_model)
        nn.init.normal_(self.identity.weight, std=0.05)

    def item_vectors(self, identity_N: Tensor, content: SignalTensors) -> Tensor:
        """(N, D): what the decoder's state is compared with to predict an item."""
        vectors_ND: Tensor = self.identity(identity_N) + self.content(content).squeeze(1)
        return vectors_ND

    def history_tokens(self, identity_N: Tensor, signals: SignalTensors) -> Tensor:
        """(N, D): one token per past event."""
        tokens_ND: Tensor = self.identity(identity_N) + self.history(signals).squeeze(1)
        return tokens_ND

    def candidate_tokens(self, identity_N: Tensor, signals: SignalTensors) -> Tensor:
        """(N, D): one token per item to be scored."""
        tokens_ND: Tensor = self.identity(identity_N) + self.candidate(signals).squeeze(1)
        return tokens_ND

    def query_tokens(self, signals: SignalTensors) -> Tensor:
        """(N, K, D): the user and the request; K may be 0."""
        if self.query is None:
            return self.identity.weight.new_zeros(len(signals.bucket_NF), 0, self.identity.embedding_dim)
        tokens_NKD: Tensor = self.query(signals)
        return tokens_NKD


def history_signals(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    """What the history maker reads: the declared signals and the time since the user's previous event."""
    return (*for_maker(signals, HISTORY), GAP_HOURS)


def query_signals(signals: Sequence[Signal]) -> tuple[Signal, ...]:
    """What the query maker reads: the declared signals and the time since the user's last event."""
    return (*for_maker(signals, QUERY), GAP_HOURS)


def forget_identities(identity_N: Tensor, *, share: float, generator: torch.Generator) -> Tensor:
    """Replace a share of identities by the shared row 0, so that row 0 and the content learn to stand alone."""
    is_forgotten_N = torch.rand(identity_N.shape, generator=generator) < share
    return identity_N.masked_fill(is_forgotten_N, 0)
