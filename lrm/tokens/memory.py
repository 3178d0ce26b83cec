"""Older events, too many for tokens of their own, compressed to a few memory tokens at the head of the prompt.

Two ways, both learned: a linear map along the sequence axis, M -> N (2606.19635, second-stage compression), or
attention pooling over each run of K = M / N events (LONGER's merge, RecSys 2025).

Shape suffixes: G segments that have older events, M older events, N memory tokens, K events of a run, D token width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearMemory(nn.Module):
    """A linear map along the sequence; events stand right-aligned, so a weight belongs to "so many events ago".

    Shape:
        tokens_GMD: (G, M, D), of which `is_event_GM` are real.
        returns: (G, N, D).
    """

    def __init__(self, *, n_events: int, n_tokens: int, d_model: int) -> None:
        super().__init__()
        self.weight_NM = nn.Parameter(_run_means(n_events, n_tokens))
        self.constant_ND = nn.Parameter(torch.randn(n_tokens, d_model) * 0.02)

    def forward(self, tokens_GMD: Tensor, is_event_GM: Tensor) -> Tensor:
        """Compress."""
        memory_GND: Tensor = self.weight_NM @ (tokens_GMD * is_event_GM.unsqueeze(-1)) + self.constant_ND
        return memory_GND


class AttentionMemory(nn.Module):
    """One token per run of events: their mean, weighted by a learned attention; an empty run is its constant alone.

    Shape:
        tokens_GMD: (G, M, D), of which `is_event_GM` are real.
        returns: (G, N, D).
    """

    def __init__(self, *, n_events: int, n_tokens: int, d_model: int) -> None:
        super().__init__()
        self.shape = (n_tokens, n_events // n_tokens)
        self.score = nn.Linear(d_model, 1)
        self.value = nn.Linear(d_model, d_model)
        self.constant_ND = nn.Parameter(torch.randn(n_tokens, d_model) * 0.02)

    def forward(self, tokens_GMD: Tensor, is_event_GM: Tensor) -> Tensor:
        """Compress."""
        tokens_GNKD = tokens_GMD.view(-1, *self.shape, tokens_GMD.shape[-1])
        is_event_GNK1 = is_event_GM.view(-1, *self.shape, 1)
        score_GNK1 = self.score(tokens_GNKD)
        score_GNK1 = score_GNK1.masked_fill(~is_event_GNK1, torch.finfo(score_GNK1.dtype).min)
        share_GNK1 = score_GNK1.softmax(2) * is_event_GNK1
        memory_GND: Tensor = (share_GNK1 * self.value(tokens_GNKD)).sum(2) + self.constant_ND
        return memory_GND


MEMORIES: dict[str, type[LinearMemory | AttentionMemory]] = {"linear": LinearMemory, "attention": AttentionMemory}


def _run_means(n_events: int, n_tokens: int) -> Tensor:
    """(N, M): each token begins as the mean of its run of events."""
    run = n_events // n_tokens
    return torch.eye(n_tokens).repeat_interleave(run, dim=1) / run
