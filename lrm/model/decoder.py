"""The decoder: pre-norm blocks of attention and SwiGLU over prompts in flat form.

Shape suffixes: N flat tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from lrm.config import ModelConfig
from lrm.model.attention import Attention, KeysValues, rotations
from lrm.model.causal import Dropout, RmsNorm
from lrm.model.packed import compiled, is_packed, packed_mask
from lrm.tokens.prompt import Layout

Decode = Callable[[Tensor, Layout, Sequence[KeysValues]], Tensor]
"""Makes states (N, D) of query and candidate tokens (N, D), given what each layer kept of the histories before them."""


class FeedForward(nn.Module):
    """SwiGLU (2002.05202)."""

    def __init__(self, *, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(d_model, 2 * d_hidden, bias=False)
        self.down = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """(N, D) to (N, D)."""
        gate, up = self.gate_up(x_ND).chunk(2, dim=-1)
        mixed_ND: Tensor = self.down(functional.silu(gate) * up)
        return mixed_ND


class Block(nn.Module):
    """One pre-norm layer; it begins as the identity, so that training starts from what the tokens say (2003.04887)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.attention_norm, self.ffn_norm = RmsNorm(d_model), RmsNorm(d_model)
        self.attention = Attention(d_model=d_model, n_heads=config.n_heads, n_kv_heads=config.n_kv_heads)
        self.ffn = FeedForward(d_model=d_model, d_hidden=int(config.ffn_multiple * d_model))
        self.dropout = Dropout(config.dropout)
        for last in (self.attention.out, self.ffn.down):
            nn.init.zeros_(last.weight)

    def forward(
        self,
        x_ND: Tensor,
        rotation_NZ: Tensor,
        layout: Layout,
        past: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """(N, D) to (N, D), and what the attention kept."""
        attended_ND, kept = self.attention(self.attention_norm(x_ND), rotation_NZ, layout, past)
        return self._mix(x_ND, attended_ND), kept

    def packed(self, x_ND: Tensor, rotation_NZ2: Tensor, mask: BlockMask) -> Tensor:
        """(N, D) to (N, D), with those tokens that make up the number of the mask."""
        return self._mix(x_ND, self.attention.packed(self.attention_norm(x_ND), rotation_NZ2, mask))

    def _mix(self, x_ND: Tensor, attended_ND: Tensor) -> Tensor:
        x_ND = x_ND + self.dropout(attended_ND)
        mixed_ND: Tensor = x_ND + self.dropout(self.ffn(self.ffn_norm(x_ND)))
        return mixed_ND


class Decoder(nn.Module):
    """A stack of blocks and a final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width = config.d_model // config.n_heads
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RmsNorm(config.d_model)

    def forward(
        self, x_ND: Tensor, layout: Layout, past: Sequence[KeysValues] | None = None
    ) -> tuple[Tensor, list[KeysValues]]:
        """(N, D) tokens to (N, D) states, and each layer's keys and values of the history.

        Where a step trains on a GPU (`lrm.model.packed`), nothing is kept.

        Args:
            x_ND: the tokens, in the order of the layout; without those of the history where `past` is given.
            layout: where all tokens stand.
            past: each layer's keys and values of the history, from an earlier call.
        """
        if past is None and is_packed(x_ND, width=self.head_width):
            return self.packed(x_ND, layout, compiled(Block.packed)), []
        rotation_NZ = rotations(layout.position_N, width=self.head_width)[len(layout.position_N) - len(x_ND) :]
        x_ND, kept = self.dropout(x_ND), []
        for layer, block in enumerate(self.blocks):
            x_ND, history = block(x_ND, rotation_NZ, layout, past[layer] if past else None)
            kept.append(history)
        states_ND: Tensor = self.norm(x_ND)
        return states_ND, kept

    def packed(
        self, x_ND: Tensor, layout: Layout, layer: Callable[[Block, Tensor, Tensor, BlockMask], Tensor]
    ) -> Tensor:
        """The states of whole prompts, no segment padded; `layer` is `Block.packed`, or what it was compiled to."""
        mask, n_tokens = packed_mask(layout), len(x_ND)
        n_more = mask.shape[-1] - n_tokens
        rotation_NZ2 = torch.view_as_real(rotations(layout.position_N, width=self.head_width))
        rotation_NZ2 = functional.pad(rotation_NZ2, (0, 0, 0, 0, 0, n_more))
        x_ND = functional.pad(self.dropout(x_ND), (0, 0, 0, n_more))
        for block in self.blocks:
            x_ND = layer(cast(Block, block), x_ND, rotation_NZ2, mask)
        states_ND: Tensor = self.norm(x_ND[:n_tokens])
        return states_ND
