"""Causal attention within padded segments, dropout and RMS norm, each in its quickest form for a processor.

Shape suffixes: N rows, D model width, G segments, H heads, J key-value heads, T places, Z head width, M segments times
heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = torch.finfo(torch.float32).eps
DROPOUT_STEPS = 256
"""On a processor dropout decides by one random byte for each number, so a rate is rounded to 1/256."""


def causal_attention(q_GHTZ: Tensor, k_GJTZ: Tensor, v_GJTZ: Tensor) -> Tensor:
    """Return (G, H, T, Z): every place attends to itself and to those before it.

    In bfloat16 on a processor three plain products are 2 to 4 times as fast as the fused kernel, above all backwards.
    """
    n_heads, n_kv_heads = q_GHTZ.shape[1], k_GJTZ.shape[1]
    if q_GHTZ.dtype != torch.bfloat16 or q_GHTZ.device.type != "cpu":
        return functional.scaled_dot_product_attention(
            q_GHTZ, k_GJTZ, v_GJTZ, is_causal=True, enable_gqa=n_heads != n_kv_heads
        )
    k_GHTZ, v_GHTZ = (x.repeat_interleave(n_heads // n_kv_heads, dim=1) for x in (k_GJTZ, v_GJTZ))
    n_places, width = q_GHTZ.shape[2:]
    q_MTZ, k_MTZ, v_MTZ = (x.reshape(-1, n_places, width) for x in (q_GHTZ, k_GHTZ, v_GHTZ))
    future_TT = q_MTZ.new_full((n_places, n_places), float("-inf")).triu(1)
    fit_MTT = torch.baddbmm(future_TT.expand(len(q_MTZ), -1, -1), q_MTZ, k_MTZ.mT, alpha=width**-0.5)
    return torch.bmm(fit_MTT.softmax(-1), v_MTZ).view(q_GHTZ.shape)


class Dropout(nn.Module):
    """Dropout, on a processor from random bytes: five times faster there than one random number for each number."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Zero a share of the numbers and scale up the rest, in training."""
        if x.device.type != "cpu":
            return functional.dropout(x, self.rate, self.training)
        limit = round(self.rate * DROPOUT_STEPS)
        if not self.training or not limit:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        is_kept = (words.view(torch.uint8)[: x.numel()] >= limit).view(x.shape)
        return torch.where(is_kept, x, 0.0) * (DROPOUT_STEPS / (DROPOUT_STEPS - limit))


class _RmsNorm(torch.autograd.Function):
    """The norm and its gradient in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, epsilon: float) -> Tensor:
        """Scale each row to unit mean square, then by the weight."""
        square_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True).square_()
        scale_N1 = square_N1.div_(x_ND.shape[-1]).add_(epsilon).rsqrt_()
        unit_ND = x_ND * scale_N1
        ctx.save_for_backward(unit_ND, scale_N1, weight_D)
        normed_ND: Tensor = unit_ND * weight_D
        return normed_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, Tensor, None]:
        """Project the gradient off each row's own direction."""
        unit_ND, scale_N1, weight_D = ctx.saved_tensors
        along_ND = grad_ND * unit_ND
        by_weight_D = along_ND.sum(0)
        along_N1 = (along_ND @ weight_D).unsqueeze(-1).div_(-unit_ND.shape[-1])
        by_x_ND = torch.addcmul(grad_ND * weight_D, unit_ND, along_N1).mul_(scale_N1)
        return by_x_ND, by_weight_D, None


class RmsNorm(nn.Module):
    """RMS norm (1910.07467); torch's own, used on a GPU, takes several times as long on a processor."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Map (N, D) to (N, D)."""
        if x_ND.device.type != "cpu":
            return functional.rms_norm(x_ND.float(), self.weight.shape, self.weight, EPSILON)
        normed_ND: Tensor = _RmsNorm.apply(x_ND, self.weight, EPSILON)  # type: ignore[no-untyped-call]
        return normed_ND
