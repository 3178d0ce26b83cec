"""Log-probabilities of items under the catalogue, in training: against all items, or against a fresh sample.

Shape suffixes: P predictions, C drawn items, D model width, V items of the catalogue, S items seen before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrm.model.recommender import Recommender
from lrm.tokens.corpus import Corpus
from lrm.tokens.factory import forget_identities
from lrm.training.cross_entropy import Seen, mean_nll

SAMPLING_POWER = 0.75
"""Negatives are drawn in proportion to popularity to this power (word2vec, 1310.4546)."""


class Negatives:
    """The items a prediction is told apart from: all of a small catalogue, a fresh sample of a large one.

    A sample is corrected for how often each item is drawn (importance sampling, Bengio and Senecal 2008).
    """

    def __init__(self, item_counts_V: np.ndarray, *, n_negatives: int, full_up_to: int) -> None:
        weight_V = (item_counts_V + 1e-3) ** SAMPLING_POWER
        self._share_V = weight_V / weight_V.sum()
        self._cumulative_V = np.cumsum(self._share_V)
        self._n_negatives = n_negatives
        self.is_full = len(item_counts_V) <= full_up_to

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Distinct rows of the catalogue (C,) and the log of how often each is drawn, float32 (C,)."""
        if self.is_full:
            return np.arange(len(self._share_V)), np.zeros(len(self._share_V), dtype=np.float32)
        drawn = np.searchsorted(self._cumulative_V, rng.random(self._n_negatives) * self._cumulative_V[-1])
        rows = np.unique(drawn)
        return rows, np.log(1.0 - (1.0 - self._share_V[rows]) ** self._n_negatives).astype(np.float32)


class Generated:
    """Log-probabilities of items under the catalogue, for one step: its negatives' vectors are made once.

    With `generator`, a share of identities is forgotten, as the configuration says.
    """

    def __init__(
        self,
        recommender: Recommender,
        corpus: Corpus,
        negatives: Negatives,
        targets: np.ndarray,
        *,
        rng: np.random.Generator,
        generator: torch.Generator | None = None,
    ) -> None:
        drawn, log_q = negatives.draw(rng)
        self._rows = np.union1d(drawn, targets)
        self._drawn = torch.as_tensor(np.searchsorted(self._rows, drawn))
        self._log_q = torch.as_tensor(log_q)
        self.is_full = negatives.is_full
        identity_C = torch.as_tensor(corpus.item_identity_V[self._rows])
        if generator is not None:
            share = recommender.config.training.id_dropout
            identity_C = forget_identities(identity_C, share=share, generator=generator)
        self._item_CD = recommender.factory.item_vectors(identity_C, corpus.content_V.take(self._rows))

    def log_p(
        self, state_PD: Tensor, row_P: np.ndarray, seen: Seen | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """(P,) log-probability of each state's own target, which a sample holds exactly once: as itself.

        Args:
            state_PD: the states.
            row_P: rows of their targets.
            seen: what the history of each holds.
            bias: what the logits of those items gain.
        """
        class_P = torch.as_tensor(np.searchsorted(self._rows, row_P))
        logit_P = (state_PD * self._item_CD[class_P]).sum(-1)
        logit_PC = state_PD @ self._item_CD[self._drawn].T - self._log_q
        if seen is not None and bias is not None:
            gain_PC = bias * self._held(seen, len(row_P))
            logit_P = logit_P + gain_PC[torch.arange(len(row_P)), class_P]
            logit_PC = logit_PC + gain_PC[:, self._drawn]
        if self.is_full:
            return logit_P - logit_PC.logsumexp(-1)
        others_PC = logit_PC.masked_fill(self._drawn == class_P.unsqueeze(-1), float("-inf"))
        return logit_P - torch.logaddexp(others_PC.logsumexp(-1), logit_P)

    def _held(self, seen: Seen, n: int) -> Tensor:
        """(P, C) 1 for the items that each of `n` histories holds, else 0."""
        rows_S = seen.class_S.cpu().numpy()
        class_S = np.searchsorted(self._rows, rows_S).clip(max=len(self._rows) - 1)
        is_here_S = torch.as_tensor(self._rows[class_S] == rows_S)
        held_PC = torch.zeros(n, len(self._rows))
        held_PC[seen.row_S[is_here_S], torch.as_tensor(class_S)[is_here_S]] = 1.0
        return held_PC

    def mean_nll(self, state_PD: Tensor, row_P: np.ndarray, seen: Seen | None, bias: Tensor | None) -> Tensor:
        """Mean negative log-probability of each state's own target under the whole catalogue; 0 without states."""
        kind = state_PD.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else state_PD.dtype
        return mean_nll(state_PD.to(dtype), self._item_CD.to(dtype), torch.as_tensor(row_P), seen=seen, bias=bias)
