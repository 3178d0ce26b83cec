"""Variant `frozen`, a control: the makers of `soft` keep their random weights; the signals are true."""

from __future__ import annotations

from collections.abc import Sequence

from lrm.config import TokensConfig
from lrm.schema import Signal
from lrm.tokens.makers.soft import SoftMaker
from lrm.tokens.vocabulary import Vocabulary


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> SoftMaker:
    """Make a maker whose weights never move."""
    return SoftMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model).requires_grad_(False)
