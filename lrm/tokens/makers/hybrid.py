"""Variant `hybrid`: numbers as soft tokens, then the categories of the same group as text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lrm.config import SOFT, TokensConfig
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.makers.soft import SoftMaker
from lrm.tokens.makers.text import TextMaker
from lrm.tokens.signals import SignalTensors
from lrm.tokens.vocabulary import Vocabulary


class HybridMaker(nn.Module):
    """Make soft tokens of numbers and vectors, and text of categories and bags.

    Shape:
        signals: N rows.
        returns: (N, K, D) float32; the soft tokens come first.
    """

    def __init__(
        self, signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
    ) -> None:
        super().__init__()
        self.signals = tuple(signals)
        numbers = [signal for signal in signals if signal.kind in (DENSE, EMBEDDING)]
        words = [signal for signal in signals if signal.kind in (SPARSE, BAG)]
        self.soft = SoftMaker(numbers, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
        self.text = TextMaker(words, vocabulary, d_model=d_model)
        self.n_tokens = n_tokens + self.text.n_tokens

    def forward(self, signals: SignalTensors) -> Tensor:
        """Make the tokens."""
        return torch.cat([self.soft(_numbers_only(signals)), self.text(_words_only(signals))], dim=1)


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> HybridMaker:
    """Make the maker of one group."""
    return HybridMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)


def event_variant(config: TokensConfig) -> str:
    """Return the variant of events and item content: always soft tokens."""
    return SOFT


def _words_only(signals: SignalTensors) -> SignalTensors:
    """Return the sparse signals and bags alone."""
    none_N0 = signals.bucket_NF[:, :0]
    return signals._replace(bucket_NF=none_N0, value_NF=signals.value_NF[:, :0], embeddings=())


def _numbers_only(signals: SignalTensors) -> SignalTensors:
    """Return the dense and embedding signals alone."""
    return signals._replace(sparse_NS=signals.sparse_NS[:, :0], bags=())
