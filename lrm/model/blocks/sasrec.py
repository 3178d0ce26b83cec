"""SASRec (1808.09781): softmax attention over learned absolute positions, as the authors' code has it.

A layer is

    q = norm(x); x = q + dropout(attention(queries of q, keys and values of x)); x = norm(x); x = x + dropout(FFN(x))

with the FFN's inner width `ffn_multiple * d_model` (1 in the paper) and ReLU. There is no projection after the
attention. Attention weights are not dropped out. The final norm is the decoder's RMS norm, not a LayerNorm.

Shape suffixes: N flat tokens, D model width, H heads, Z head width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lrm.config import ModelConfig
from lrm.model.attention import attend
from lrm.model.blocks import Kept
from lrm.model.cpu_kernels import Dropout
from lrm.tokens.layout import Layout

EPSILON = 1e-8


class Stem(nn.Module):
    """Scale the tokens by the root of their width and add learned positions."""

    def __init__(self, config: ModelConfig, *, n_positions: int) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.positions = nn.Embedding(n_positions, config.d_model)
        nn.init.normal_(self.positions.weight, std=1.0 / self.scale)

    def forward(self, x_ND: Tensor, layout: Layout) -> Tensor:
        """Map (N, D) to (N, D); the tokens are the last of the layout."""
        position_N = layout.position_N[len(layout.position_N) - len(x_ND) :]
        positioned_ND: Tensor = self.scale * x_ND + self.positions(position_N)
        return positioned_ND


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, d_hidden = config.d_model, int(config.ffn_multiple * config.d_model)
        self.heads = (config.n_heads, d_model // config.n_heads)
        self.attention_norm, self.ffn_norm = (nn.LayerNorm(d_model, eps=EPSILON) for _ in range(2))
        self.query, self.key, self.value = (nn.Linear(d_model, d_model) for _ in range(3))
        self.ffn = nn.Sequential(
            nn.Linear(d_model, d_hidden), nn.ReLU(), Dropout(config.dropout), nn.Linear(d_hidden, d_model)
        )
        self.dropout = Dropout(config.dropout)

    def prepare(self, layout: Layout, n_tokens: int) -> None:
        """Need nothing of a layout."""

    def forward(self, x_ND: Tensor, layout: Layout, _prepared: None, past: Kept | None = None) -> tuple[Tensor, Kept]:
        """Map (N, D) to (N, D), and return the keys and values of the history."""
        normed_ND, n_history = self.attention_norm(x_ND), len(layout.history_slot_H)
        q_NHZ, k_NHZ, v_NHZ = (
            layer(of_ND).view(-1, *self.heads)
            for layer, of_ND in ((self.query, normed_ND), (self.key, x_ND), (self.value, x_ND))
        )
        if past is not None:
            k_NHZ, v_NHZ = torch.cat([past[0], k_NHZ]), torch.cat([past[1], v_NHZ])
        x_ND = normed_ND + self.dropout(attend(q_NHZ, k_NHZ, v_NHZ, layout).flatten(1))
        normed_ND = self.ffn_norm(x_ND)
        mixed_ND: Tensor = normed_ND + self.dropout(self.ffn(normed_ND))
        return mixed_ND, (k_NHZ[:n_history], v_NHZ[:n_history])
