"""The default block: rotary grouped-query attention with a softmax, and a SwiGLU feed-forward layer, both pre-norm.

It makes all three offers of `lrm.model.blocks`.

Shape suffixes: N flat tokens, D model width, G requests, S query and candidate tokens of a request, V visible places,
H heads, J key-value heads, P heads that share one, L = P * S, Z head width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask

from lrm.config import ModelConfig
from lrm.errors import ConfigError
from lrm.model.attention import Attention, rotations
from lrm.model.blocks import Kept
from lrm.model.blocks._softmax_onnx import layer_nodes
from lrm.model.cpu_kernels import Dropout, RmsNorm
from lrm.model.feed_forward import FeedForward
from lrm.model.flex_attention import can_use_flex, flex_mask, padded_size
from lrm.model.onnx_ops import OnnxOp
from lrm.tokens.layout import Layout


class Block(nn.Module):
    """One pre-norm layer; it begins as the identity, so that training starts from what the tokens say (2003.04887).

    Raises:
        ConfigError: a head's width is odd; rotary positions turn pairs of numbers.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.d_model % (2 * config.n_heads):
            raise ConfigError(
                f"d_model {config.d_model} must be an even multiple of n_heads {config.n_heads}: rotary positions turn "
                "pairs of numbers"
            )
        d_model = config.d_model
        self.attention_norm, self.ffn_norm = RmsNorm(d_model), RmsNorm(d_model)
        self.attention = Attention(d_model=d_model, n_heads=config.n_heads, n_kv_heads=config.n_kv_heads)
        self.ffn = FeedForward(d_model=d_model, d_hidden=int(config.ffn_multiple * d_model))
        self.dropout = Dropout(config.dropout)
        for last in (self.attention.out, self.ffn.down):
            nn.init.zeros_(last.weight)

    def prepare(self, layout: Layout, n_tokens: int) -> Tensor:
        """Return the complex rotations (N, Z / 2) of the last `n_tokens` tokens."""
        rotation_NZ = rotations(layout.position_N, width=self.attention.width)
        return rotation_NZ[len(layout.position_N) - n_tokens :]

    def forward(
        self, x_ND: Tensor, layout: Layout, rotation_NZ: Tensor, past: Kept | None = None
    ) -> tuple[Tensor, Kept]:
        """Map (N, D) to (N, D), and return the keys and values of the history."""
        attended_ND, kept = self.attention(self.attention_norm(x_ND), rotation_NZ, layout, past)
        return self._mix(x_ND, attended_ND), kept

    def _mix(self, x_ND: Tensor, attended_ND: Tensor) -> Tensor:
        x_ND = x_ND + self.dropout(attended_ND)
        mixed_ND: Tensor = x_ND + self.dropout(self.ffn(self.ffn_norm(x_ND)))
        return mixed_ND

    def can_pack(self, x_ND: Tensor) -> bool:
        """Return whether a step here trains by the kernel of `lrm.model.flex_attention`."""
        return can_use_flex(x_ND, head_width=self.attention.width)

    def prepare_packed(self, layout: Layout) -> tuple[Tensor, BlockMask]:
        """Return the rotations (N, Z / 2, 2) of all tokens and fillers, and who sees whom."""
        n_fillers = padded_size(len(layout.position_N)) - len(layout.position_N)
        rotation_NZ2 = torch.view_as_real(rotations(layout.position_N, width=self.attention.width))
        return functional.pad(rotation_NZ2, (0, 0, 0, 0, 0, n_fillers)), flex_mask(layout)

    def packed(self, x_ND: Tensor, rotation_NZ2: Tensor, mask: BlockMask) -> Tensor:
        """Map (N, D) to (N, D), the fillers included."""
        return self._mix(x_ND, self.attention.packed(self.attention_norm(x_ND), rotation_NZ2, mask))

    def kept_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Return the shapes of a token's keys and of its values."""
        shape = (self.attention.n_kv_heads, self.attention.width)
        return shape, shape

    def prepare_fixed(self, position_N: Tensor) -> Tensor:
        """Return the complex rotations (N, Z / 2) of the positions."""
        return rotations(position_N, width=self.attention.width)

    def fixed(self, x_ND: Tensor, rotation_NZ: Tensor, past: Kept, sees_GSV: Tensor) -> Tensor:
        """Map (G * S, D) to (G * S, D), over as many history tokens for each request."""
        attention, n_requests = self.attention, len(sees_GSV)
        n_kv_heads, width, shared = attention.n_kv_heads, attention.width, attention.n_heads // attention.n_kv_heads
        q_NHZ, k_NJZ, v_NJZ = attention.heads(self.attention_norm(x_ND), rotation_NZ)
        k_GJVZ, v_GJVZ = (
            torch.cat([part.view(n_requests, -1, n_kv_heads, width) for part in both], dim=1).transpose(1, 2)
            for both in zip(past, (k_NJZ, v_NJZ), strict=True)
        )
        # Heads that share their keys stand as so many more places: kernels with a mask want a key head for each head.
        q_GSJPZ = q_NHZ.view(n_requests, -1, n_kv_heads, shared, width)
        q_GJLZ = q_GSJPZ.permute(0, 2, 3, 1, 4).flatten(2, 3)
        sees_GJLV = sees_GSV.repeat(1, shared, 1).unsqueeze(1)
        mixed_GJLZ = functional.scaled_dot_product_attention(q_GJLZ, k_GJVZ, v_GJVZ, attn_mask=sees_GJLV)
        mixed_GJPSZ = mixed_GJLZ.view(n_requests, n_kv_heads, shared, -1, width)
        x_ND = x_ND + attention.out(mixed_GJPSZ.permute(0, 3, 1, 2, 4).reshape(len(x_ND), -1))
        mixed_ND: Tensor = x_ND + self.ffn(self.ffn_norm(x_ND))
        return mixed_ND

    def onnx_inputs(self) -> Mapping[str, tuple[int | str, ...]]:
        """Return the inputs `cos` and `sin`, of the positions, and `bias`, repeated for heads that share their keys."""
        half = self.attention.width // 2
        return {"cos": (1, "n", half), "sin": (1, "n", half), "bias": ("g", 1, "l", "v")}

    def onnx_feed(self, layout: Layout, n_tokens: int, bias_GSV: np.ndarray) -> dict[str, np.ndarray]:
        """Return those inputs."""
        turn_NZ2 = torch.view_as_real(rotations(layout.position_N[-n_tokens:], width=self.attention.width))
        cos_NZ, sin_NZ = turn_NZ2.unsqueeze(0).unbind(-1)
        shared = self.attention.n_heads // self.attention.n_kv_heads
        return {
            "cos": cos_NZ.numpy(),
            "sin": sin_NZ.numpy(),
            "bias": bias_GSV.repeat(shared, axis=1)[:, np.newaxis],
        }

    def onnx_nodes(self, op: OnnxOp, x_ND: str, layer: int, per_candidate: int) -> str:
        """Add the operators of this layer, and return the name of its output."""
        return layer_nodes(
            op,
            x_ND,
            (self.attention_norm, self.attention, self.ffn_norm, self.ffn),
            layer=layer,
            per_candidate=per_candidate,
        )
