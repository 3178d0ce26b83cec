"""Variant `constant`, a control: the network of `soft` on inputs that are all missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrm.config import TokensConfig
from lrm.schema import Signal
from lrm.tokens.makers.soft import SoftMaker
from lrm.tokens.signals import SignalTensors
from lrm.tokens.vocabulary import Vocabulary


class ConstantMaker(SoftMaker):
    """Embed every row as one without any value."""

    @property
    def pretrainable(self) -> bool:
        """A maker that never reads a value cannot predict one."""
        return False

    def embed(self, signals: SignalTensors) -> Tensor:
        """Return the embeddings of missing signals."""
        missing = SignalTensors(
            torch.zeros_like(signals.bucket_NF),
            torch.zeros_like(signals.value_NF),
            torch.zeros_like(signals.sparse_NS),
            tuple(torch.zeros_like(bag) for bag in signals.bags),
            tuple(torch.full_like(vector, float("nan")) for vector in signals.embeddings),
        )
        return super().embed(missing)


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> ConstantMaker:
    """Make the maker of one group."""
    return ConstantMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
