"""Attention over prompts in flat form: causal over the history, then requests and candidates over that prefix.

Shape suffixes: N flat tokens, E flat history tokens, H heads, J key-value heads, P heads that share one, Z head width,
G segments, T padded history length, U padded length of history and query tokens, S padded length of query and candidate
tokens, L = P * S, C candidates, K (or L) tokens of a candidate, D model width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from lrm.model.cpu_kernels import causal_attention
from lrm.model.flex_attention import masked_attention
from lrm.tokens.layout import Layout

LOWEST = -1e4
"""The peak score of a token that sees nothing."""


class Attended(NamedTuple):
    """Attention over a part of what tokens see, before division. Parts add up once they are scaled to one peak."""

    mixed_NHZ: Tensor
    """Values times exp(score - peak), summed."""
    weight_NH1: Tensor
    """exp(score - peak), summed."""
    peak_NH1: Tensor


class Attention(nn.Module):
    """Grouped-query attention (2305.13245), with rotary positions (2104.09864) or none, under the rule of the prompt.

    Shape:
        x_ND: (N, D): memory and event tokens first, then query tokens, then candidate tokens. Where the keys and values
            of the history are given, its tokens are left out.
        returns: (N, D), and the keys and values of the history.
    """

    def __init__(self, *, d_model: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.width = n_heads, n_kv_heads, d_model // n_heads
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.width, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x_ND: Tensor, rotation_NZ: Tensor | None, layout: Layout, past: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend, segments padded to one length."""
        q_NHZ, k_NJZ, v_NJZ = self.heads(x_ND, rotation_NZ)
        n_history = len(layout.history_slot_H)
        if past is not None:
            keys_HJZ, values_HJZ = past
            k_NJZ, v_NJZ = torch.cat([keys_HJZ, k_NJZ]), torch.cat([values_HJZ, v_NJZ])
        mixed_ND: Tensor = self.out(attend(q_NHZ, k_NJZ, v_NJZ, layout).flatten(1))
        return mixed_ND, (k_NJZ[:n_history], v_NJZ[:n_history])

    def packed(self, x_ND: Tensor, rotation_NZ2: Tensor, mask: BlockMask) -> Tensor:
        """Attend by a mask of `lrm.model.flex_attention`, over all tokens and fillers."""
        mixed_ND: Tensor = self.out(masked_attention(*self.heads(x_ND, rotation_NZ2), mask).flatten(1))
        return mixed_ND

    def heads(self, x_ND: Tensor, rotation_NZ: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (N, heads, Z); the first two turned by their positions."""
        heads_NHZ = self.qkv(x_ND).view(len(x_ND), self.n_heads + 2 * self.n_kv_heads, self.width)
        q_NHZ, k_NJZ, v_NJZ = torch.split(heads_NHZ, [self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=1)
        if rotation_NZ is None:
            return q_NHZ, k_NJZ, v_NJZ
        return rotate(q_NHZ, rotation_NZ), rotate(k_NJZ, rotation_NZ), v_NJZ


def attend(q_NHZ: Tensor, k_NJZ: Tensor, v_NJZ: Tensor, layout: Layout) -> Tensor:
    """Return (N, H, Z): softmax attention of the last tokens, or of all, to the keys of all tokens.

    Args:
        q_NHZ: queries of all tokens, or of all but the history.
        k_NJZ: keys of all tokens, the history first.
        v_NJZ: their values.
        layout: of all tokens.
    """
    n_history, n_prefix = len(layout.history_slot_H), len(layout.prefix_slot_N)
    n_asking = n_history if len(q_NHZ) == len(k_NJZ) else 0
    past_shape = (layout.bias_GSU.shape[0], layout.bias_GSU.shape[2])
    k_GJUZ, v_GJUZ = (
        pad(x_NJZ[:n_prefix], layout.prefix_slot_N, past_shape).transpose(1, 2).contiguous() for x_NJZ in (k_NJZ, v_NJZ)
    )
    mixed_NHZ = q_NHZ[:0]
    if n_asking:
        mixed_NHZ = _attend_history(q_NHZ[:n_history], k_GJUZ, v_GJUZ, layout)
    if len(q_NHZ) > n_asking:
        before = _attend_past(q_NHZ[n_asking:], k_GJUZ, v_GJUZ, layout)
        own_q_NHZ = q_NHZ[n_asking + n_prefix - n_history :]
        own = (own_q_NHZ, k_NJZ[n_prefix:], v_NJZ[n_prefix:])
        suffix_NHZ = _join_own(before, *own, per_candidate=layout.shape.per_candidate)
        mixed_NHZ = torch.cat([mixed_NHZ, suffix_NHZ])
    return mixed_NHZ


def _attend_history(q_EHZ: Tensor, k_GJUZ: Tensor, v_GJUZ: Tensor, layout: Layout) -> Tensor:
    longest = layout.history_shape[1]
    q_GHTZ = pad(q_EHZ, layout.history_slot_H, layout.history_shape).transpose(1, 2)
    mixed_GHTZ = causal_attention(q_GHTZ, k_GJUZ[:, :, :longest], v_GJUZ[:, :, :longest])
    return mixed_GHTZ.transpose(1, 2).flatten(0, 1)[layout.history_slot_H]


def _attend_past(q_NHZ: Tensor, k_GJUZ: Tensor, v_GJUZ: Tensor, layout: Layout) -> Attended:
    """Return what query and candidate tokens take from the history and from the query tokens of their request."""
    (n_segments, widest), n_kv_heads, (n_heads, width) = layout.suffix_shape, k_GJUZ.shape[1], q_NHZ.shape[1:]
    grouped = (n_segments, n_kv_heads, n_heads // n_kv_heads, widest)
    q_GSHZ = pad(q_NHZ / math.sqrt(width), layout.suffix_slot_N, layout.suffix_shape)
    q_GJPSZ = q_GSHZ.transpose(1, 2).reshape(*grouped, width)
    # In place, and on no view: these are the largest tensors of a step.
    weight_GJLU = q_GJPSZ.flatten(2, 3) @ k_GJUZ.transpose(-1, -2)
    weight_GJLU = weight_GJLU.add_(layout.bias_GSU.repeat(1, grouped[2], 1).unsqueeze(1))
    peak_GJL1 = weight_GJLU.detach().amax(-1, keepdim=True).clamp_(min=LOWEST)
    weight_GJLU = weight_GJLU.sub_(peak_GJL1).exp_()

    def flat(x_GJLZ: Tensor) -> Tensor:
        x_GSJPZ = x_GJLZ.view(*grouped, -1).permute(0, 3, 1, 2, 4)
        return x_GSJPZ.flatten(2, 3).flatten(0, 1)[layout.suffix_slot_N]

    return Attended(flat(weight_GJLU @ v_GJUZ), flat(weight_GJLU.sum(-1, keepdim=True)), flat(peak_GJL1))


def _join_own(past: Attended, q_NHZ: Tensor, k_NJZ: Tensor, v_NJZ: Tensor, *, per_candidate: int) -> Tensor:
    """Let the tokens of each candidate see one another as well; query tokens have seen all that they may."""
    n_query = len(past.weight_NH1) - len(q_NHZ)
    query = Attended(*(x[:n_query] for x in past))
    mixed_NHZ = query.mixed_NHZ / query.weight_NH1
    if not len(q_NHZ):
        return mixed_NHZ
    past = Attended(*(x[n_query:] for x in past))
    n_heads, width = q_NHZ.shape[1:]
    repeats, shape = n_heads // k_NJZ.shape[1], (-1, per_candidate, n_heads)
    k_CKHZ, v_CKHZ = (x.repeat_interleave(repeats, 1).view(*shape, width) for x in (k_NJZ, v_NJZ))
    q_CKHZ = q_NHZ.view(*shape, width) / math.sqrt(width)
    own_NHK = torch.einsum("ckhz,clhz->ckhl", q_CKHZ, k_CKHZ).flatten(0, 1)
    peak_NH1 = torch.maximum(past.peak_NH1, own_NHK.detach().amax(-1, keepdim=True))
    own_NHK, before_NH1 = (own_NHK - peak_NH1).exp(), (past.peak_NH1 - peak_NH1).exp()
    own_mixed_CKHZ = torch.einsum("ckhl,clhz->ckhz", own_NHK.view(*shape, per_candidate), v_CKHZ)
    weight_NH1 = past.weight_NH1 * before_NH1 + own_NHK.sum(-1, keepdim=True)
    candidates_NHZ = (past.mixed_NHZ * before_NH1 + own_mixed_CKHZ.flatten(0, 1)) / weight_NH1
    return torch.cat([mixed_NHZ, candidates_NHZ])


def pad(x_N: Tensor, slot_N: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return flat tokens (N, ...) as `shape` (segments, places, ...), with zeros where no token stands."""
    padded = x_N.new_zeros((shape[0] * shape[1], *x_N.shape[1:]))
    return padded.index_copy(0, slot_N, x_N).view(*shape, *x_N.shape[1:])


def rotations(position_N: Tensor, *, width: int, base: float = 10_000.0) -> Tensor:
    """Return the complex rotations (N, Z / 2) of rotary positions."""
    frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=position_N.device) / width)
    angle = position_N.unsqueeze(-1) * frequency
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x_NHZ: Tensor, rotation_NZ: Tensor) -> Tensor:
    """Turn each pair of a head's numbers by the token's position.

    Args:
        x_NHZ: queries or keys.
        rotation_NZ: as `rotations` gives them; or as pairs (N, Z / 2, 2) of real numbers, which a compiler can fuse.
    """
    if not rotation_NZ.is_complex():
        wide_NHZ = x_NHZ.float()
        even_NHZ, odd_NHZ = wide_NHZ[..., ::2], wide_NHZ[..., 1::2]
        cos_N1Z, sin_N1Z = rotation_NZ.unsqueeze(1).unbind(-1)
        turned = (even_NHZ * cos_N1Z - odd_NHZ * sin_N1Z, even_NHZ * sin_N1Z + odd_NHZ * cos_N1Z)
        return torch.stack(turned, -1).flatten(-2).to(x_NHZ.dtype)
    pairs = torch.view_as_complex(x_NHZ.float().reshape(*x_NHZ.shape[:-1], x_NHZ.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * rotation_NZ.unsqueeze(1)).flatten(-2).to(x_NHZ.dtype)
