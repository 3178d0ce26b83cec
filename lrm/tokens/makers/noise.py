"""Variant `noise`, a control: the network of `soft` on noise.

Shape suffixes: N rows, M signals of the maker, W width of one signal's embedding, J noises, X numbers of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lrm.config import TokensConfig
from lrm.schema import Signal
from lrm.tokens.makers.soft import SoftMaker
from lrm.tokens.signals import SignalTensors
from lrm.tokens.vocabulary import Vocabulary

NOISE_SEED = 0
N_NOISES = 1021
"""Draws of noise that scoring chooses from. It is a prime, so rows that differ in one column rarely share one."""


class NoiseMaker(SoftMaker):
    """Put noise in place of the signals' embeddings, fresh in every training step.

    In scoring, the noise of a row depends on the row's own values alone, so a request scores the same wherever and in
    whatever batch it is asked. Training never saw that noise twice, so nothing can be read from it.
    """

    @property
    def pretrainable(self) -> bool:
        """Noise cannot predict a masked signal."""
        return False

    def embed(self, signals: SignalTensors) -> Tensor:
        """Return noise (N, M, W) of the shape of the signals' embeddings."""
        embedded_NMW = super().embed(signals)
        if self.training:
            return 0.0 * embedded_NMW + torch.randn(embedded_NMW.shape, device=embedded_NMW.device)
        generator = torch.Generator().manual_seed(NOISE_SEED)
        noise_JMW = torch.randn(N_NOISES, *embedded_NMW.shape[1:], generator=generator, device="cpu")
        return 0.0 * embedded_NMW + noise_JMW.to(embedded_NMW.device)[_hashed(signals)]


def make(
    signals: Sequence[Signal], vocabulary: Vocabulary, config: TokensConfig, *, n_tokens: int, d_model: int
) -> NoiseMaker:
    """Make the maker of one group."""
    return NoiseMaker(signals, vocabulary, config, n_tokens=n_tokens, d_model=d_model)


def _hashed(signals: SignalTensors) -> Tensor:
    """Return (N,) a number below `N_NOISES`, of the values that are the same to the last bit in any batch."""
    bits = [vector_NV.contiguous().view(torch.int32) for vector_NV in signals.embeddings]
    parts = [part_NX.long() for part_NX in (signals.bucket_NF, signals.sparse_NS, *signals.bags, *bits)]
    held_NX = torch.cat(parts, dim=1)
    generator = torch.Generator().manual_seed(NOISE_SEED)
    weight_X = torch.randint(1, N_NOISES, (held_NX.shape[1],), generator=generator, device="cpu").to(held_NX.device)
    return (held_NX % N_NOISES * weight_X).sum(1) % N_NOISES
