"""The LiGR block of eSASRec (2508.06450): gates read the un-normalised stream and scale what each sublayer adds.

    x = x + sigmoid(G1 x) * dropout(attention(norm(x))); x = x + sigmoid(G2 x) * dropout(SwiGLU(norm(x)))

G1 and G2 are full linear layers. Positions are learned and absolute. Attention weights are not dropped out. The final
norm is the decoder's RMS norm.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lrm.config import ModelConfig
from lrm.model.attention import Attention
from lrm.model.blocks import Kept
from lrm.model.cpu_kernels import Dropout
from lrm.model.feed_forward import FeedForward
from lrm.tokens.layout import Layout


class Stem(nn.Module):
    """Add learned positions."""

    def __init__(self, config: ModelConfig, *, n_positions: int) -> None:
        super().__init__()
        self.positions = nn.Embedding(n_positions, config.d_model)
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(self, x_ND: Tensor, layout: Layout) -> Tensor:
        """Map (N, D) to (N, D); the tokens are the last of the layout."""
        positioned_ND: Tensor = x_ND + self.positions(layout.position_N[len(layout.position_N) - len(x_ND) :])
        return positioned_ND


class Block(nn.Module):
    """One layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attention_norm, self.ffn_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attention = Attention(d_model=d_model, n_heads=config.n_heads, n_kv_heads=config.n_kv_heads)
        self.ffn = FeedForward(d_model=d_model, d_hidden=int(config.ffn_multiple * d_model))
        self.attention_gate, self.ffn_gate = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.dropout = Dropout(config.dropout)

    def prepare(self, layout: Layout, n_tokens: int) -> None:
        """Need nothing of a layout."""

    def forward(self, x_ND: Tensor, layout: Layout, _prepared: None, past: Kept | None = None) -> tuple[Tensor, Kept]:
        """Map (N, D) to (N, D), and return the keys and values of the history."""
        attended_ND, kept = self.attention(self.attention_norm(x_ND), None, layout, past)
        x_ND = x_ND + torch.sigmoid(self.attention_gate(x_ND)) * self.dropout(attended_ND)
        mixed_ND: Tensor = x_ND + torch.sigmoid(self.ffn_gate(x_ND)) * self.dropout(self.ffn(self.ffn_norm(x_ND)))
        return mixed_ND, kept
