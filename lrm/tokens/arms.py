"""The arms of the experiment: how a group's signals reach the prompt, all with the same backbone around them.

| arm | a group's tokens |
|---|---|
| `soft` | soft tokens of all its signals (ours) |
| `text` | every signal written out |
| `hybrid` | numbers as soft tokens, words written out; events stay soft |
| `none` | learned constants: ids only |
| `noise` | control: noise in place of every signal's embedding, fresh in training |
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
from lrm.tokens.strata import donors, strata
from lrm.tokens.text import TextMaker, numbers_only, text_only
from lrm.tokens.vocabulary import Vocabulary

SHUFFLE_SEED, NOISE_SEED = 0, 0
N_NOISES = 1021
"""Draws of noise that scoring chooses from; a prime: rows that differ in one column alone seldom share one."""


class NoiseMaker(TokenMaker):
    """Control: the same network on noise, fresh in every training step.

    When scoring, a row's noise hangs on what the row holds and on nothing else, so that a request scores the same
    wherever it is asked and in whatever company. Training never saw that noise twice, so nothing can be read from it.
    """

    def embed(self, signals: SignalTensors) -> Tensor:
        """Noise of the shape of the signals' embeddings."""
        embedded_NMW = super().embed(signals)
        if self.training:
            return 0.0 * embedded_NMW + torch.randn(embedded_NMW.shape, device=embedded_NMW.device)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise_JMW = torch.randn(N_NOISES, *embedded_NMW.shape[1:], generator=generator, device="cpu")
        return 0.0 * embedded_NMW + noise_JMW.to(embedded_NMW.device)[_hashed(signals)]


def _hashed(signals: SignalTensors) -> Tensor:
    """(N,) below `N_NOISES`: of all that is the same to the last bit however a row was computed."""
    bits = [vector_NV.contiguous().view(torch.int32) for vector_NV in signals.embeddings]
    parts = [part_NX.long() for part_NX in (signals.bucket_NF, signals.sparse_NS, *signals.bags, *bits)]
    held_NX = torch.cat(parts, dim=1)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    weight_X = torch.randint(1, N_NOISES, (held_NX.shape[1],), generator=generator, device="cpu").to(held_NX.device)
    return (held_NX % N_NOISES * weight_X).sum(1) % N_NOISES


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


def as_the_arm_sees(corpus: Corpus, arm: str, vocabulary: Vocabulary) -> Corpus:
    """The corpus, for `shuffled` with signals exchanged between rows of the same split that are alike (`strata`).

    Requests trade with requests that follow as long a history, events and candidates with those after as long a history
    and of items as popular, items with items as popular. Each row takes all signals of another row together. A row that
    has no other like it keeps its own: such a model says something only of many requests at once.
    """
    if arm != SHUFFLED:
        return corpus
    rng, alike = np.random.default_rng(SHUFFLE_SEED), strata(corpus, vocabulary)
    return replace(
        corpus,
        content_V=_rows(corpus.content_V, donors(alike.item_V, rng)),
        history_E=_rows(corpus.history_E, donors(alike.event_E, rng)),
        query_R=_rows(corpus.query_R, donors(alike.request_R, rng)),
        candidate_C=_rows(corpus.candidate_C, donors(alike.candidate_C, rng)),
    )


def _rows(signals: SignalArrays, rows: np.ndarray) -> SignalArrays:
    return SignalArrays(
        signals.bucket_NF[rows],
        signals.value_NF[rows],
        signals.sparse_NS[rows],
        tuple(bag[rows] for bag in signals.bags),
        tuple(embedding[rows] for embedding in signals.embeddings),
    )
