"""Variant `none`: learned constant tokens, so that a model knows users and items by their ids alone."""

from __future__ import annotations

from collections.abc import Sequence

from lrm.config import TokensConfig
from lrm.schema import Signal
from lrm.tokens.makers.soft import SoftMaker
from lrm.tokens.vocabulary import Vocabulary


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> SoftMaker:
    """Make a maker that reads no signal of the group."""
    return SoftMaker((), vocabulary, config, n_tokens=n_tokens, d_model=d_model)
