"""The arms of the experiment: how a group's signals reach the prompt, all with the same backbone around them.

| arm | a group's tokens |
|---|---|
| `soft` | soft tokens of all its signals (ours) |
| `text` | every signal written out |
| `hybrid` | numbers as soft tokens, words written out; events stay soft |
| `none` | learned constants: ids only |
| `noise` | control: fresh noise in place of every signal's embedding |
| `frozen` | control: the makers' weights stay random; the signals are true |
| `shuffled` | control: as `soft`, the signals exchanged between like users and like items |
| `constant` | control: the network of `soft` on inputs that are all missing |

A control has the shape and the cost of `soft`. `shuffled` is the headline null: same factory, same distribution of
every signal, no information about whom it stands beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lrm.config import CONSTANT, FROZEN, HYBRID, NOISE, NONE, SHUFFLED, TEXT, TokensConfig
from lrm.schema import BAG, DENSE, EMBEDDING, SPARSE, Signal
from lrm.tokens.corpus import Corpus
from lrm.tokens.maker import TokenMaker
from lrm.tokens.signals import SignalArrays, SignalTensors
from lrm.tokens.text import TextMaker, numbers_only, text_only
from lrm.tokens.vocabulary import Vocabulary

N_STRATA = 10
"""Users of like history length and items of like popularity: tenths."""
SHUFFLE_SEED = 0


class NoiseMaker(TokenMaker):
    """Control: the same network on fresh noise."""

    def embed(self, signals: SignalTensors) -> Tensor:
        """Noise of the shape of the signals' embeddings; drawn alike each time when not training."""
        embedded_NMW = super().embed(signals)
        generator = None if self.training else torch.Generator(embedded_NMW.device).manual_seed(0)
        return 0.0 * embedded_NMW + torch.randn(embedded_NMW.shape, generator=generator, device=embedded_NMW.device)


class ConstantMaker(TokenMaker):
    """Control: the same network on inputs that are all missing."""

    def embed(self, signals: SignalTensors) -> Tensor:
        """The embeddings of missing signals."""
        missing = SignalTensors(
            torch.zeros_like(signals.bucket_NF),
            torch.zeros_like(signals.value_NF),
            torch.zeros_like(signals.sparse_NS),
            tuple(torch.zeros_like(bag) for bag in signals.bags),
            tuple(torch.full_like(vector, float("nan")) for vector in signals.embeddings),
        )
        return super().embed(missing)


class HybridMaker(nn.Module):
    """Numbers as soft tokens, then the words of the same group as hard ones."""

    def __init__(
        self, signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
    ) -> None:
        super().__init__()
        self.signals = tuple(signals)
        numbers = [signal for signal in signals if signal.kind in (DENSE, EMBEDDING)]
        words = [signal for signal in signals if signal.kind in (SPARSE, BAG)]
        self.soft = TokenMaker(numbers, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
        self.text = TextMaker(words, vocabulary, d_model=d_model)
        self.n_tokens = n_tokens + self.text.n_tokens

    def forward(self, signals: SignalTensors) -> Tensor:
        """Make the tokens."""
        return torch.cat([self.soft(numbers_only(signals)), self.text(text_only(signals))], dim=1)


Maker = TokenMaker | TextMaker | HybridMaker


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> Maker:
    """The maker that the arm of `config` asks for."""
    if config.arm == TEXT:
        return TextMaker(signals, vocabulary, d_model=d_model)
    if config.arm == HYBRID:
        return HybridMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
    kinds: dict[str, type[TokenMaker]] = {NOISE: NoiseMaker, CONSTANT: ConstantMaker}
    read = () if config.arm == NONE else signals
    maker = kinds.get(config.arm, TokenMaker)(read, vocabulary, config, n_tokens=n_tokens, d_model=d_model)
    return maker.requires_grad_(config.arm != FROZEN)


def as_the_arm_sees(corpus: Corpus, arm: str) -> Corpus:
    """The corpus, for `shuffled` with signals exchanged between rows of the same split that are alike.

    Requests trade with requests that follow as long a history (to a tenth), events and candidates with those of items
    as popular, items with items as popular. Each row takes all signals of another row together.
    """
    if arm != SHUFFLED:
        return corpus
    rng = np.random.default_rng(SHUFFLE_SEED)
    counts = np.bincount(corpus.event_row_E[corpus.event_is_train_E], minlength=len(corpus.item_ids))
    popularity_V = _tenths(counts)
    identities = np.zeros(int(corpus.item_identity_V.max(initial=0)) + 1, dtype=np.int64)
    identities[corpus.item_identity_V] = popularity_V
    split_C = np.repeat(corpus.split_R, np.diff(corpus.candidate_offset_R))
    return replace(
        corpus,
        content_V=_exchanged(corpus.content_V, popularity_V, rng),
        history_E=_exchanged(
            corpus.history_E, corpus.event_is_train_E * N_STRATA + popularity_V[corpus.event_row_E], rng
        ),
        query_R=_exchanged(corpus.query_R, corpus.split_R * N_STRATA + _tenths(corpus.visible_R), rng),
        candidate_C=_exchanged(corpus.candidate_C, split_C * N_STRATA + identities[corpus.candidate_identity_C], rng),
    )


def _tenths(values: np.ndarray) -> np.ndarray:
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    tenths: np.ndarray = ranks * N_STRATA // max(1, len(values))
    return tenths


def _exchanged(signals: SignalArrays, stratum_N: np.ndarray, rng: np.random.Generator) -> SignalArrays:
    shuffled = rng.permutation(len(stratum_N))
    rows = np.empty(len(stratum_N), dtype=np.int64)
    rows[np.argsort(stratum_N, kind="stable")] = shuffled[np.argsort(stratum_N[shuffled], kind="stable")]
    return SignalArrays(
        signals.bucket_NF[rows],
        signals.value_NF[rows],
        signals.sparse_NS[rows],
        tuple(bag[rows] for bag in signals.bags),
        tuple(embedding[rows] for embedding in signals.embeddings),
    )
