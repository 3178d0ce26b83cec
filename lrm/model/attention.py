"""Attention over prompts in flat form: causal over the history, then requests and candidates over that prefix.

Shape suffixes: N flat tokens, E flat history tokens, Q flat query tokens, H heads, J key-value heads, Z head width,
G segments, T padded history length, S padded suffix length, R requests, K query tokens of a request, D model width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lrm.model.causal import causal_attention
from lrm.tokens.prompt import Layout


class Prefix(NamedTuple):
    """Keys and values of the histories, per layer: what a server would cache for a user. Each (G, T, J, Z)."""

    key_GTJZ: Tensor
    value_GTJZ: Tensor


class Attention(nn.Module):
    """Grouped-query attention (2305.13245) with rotary positions (2104.09864) under the rule of `lrm.tokens.prompt`.

    Shape:
        x_ND: (N, D), history tokens first, then query tokens, then candidates.
        returns: (N, D).
    """

    def __init__(self, *, d_model: int, n_heads: int, n_kv_heads: int) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.width = n_heads, n_kv_heads, d_model // n_heads
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * self.width, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x_ND: Tensor, rotation_NZ: Tensor, layout: Layout, *, n_query_tokens: int) -> Tensor:
        """Attend."""
        heads_NHZ = self.qkv(x_ND).view(len(x_ND), self.n_heads + 2 * self.n_kv_heads, self.width)
        q_NHZ, k_NJZ, v_NJZ = torch.split(heads_NHZ, [self.n_heads, self.n_kv_heads, self.n_kv_heads], dim=1)
        q_NHZ, k_NJZ = rotate(q_NHZ, rotation_NZ), rotate(k_NJZ, rotation_NZ)
        n_events = len(layout.history_slot_E)
        prefix = self._prefix(k_NJZ[:n_events], v_NJZ[:n_events], layout)
        history_EHZ = self._attend_history(q_NHZ[:n_events], prefix, layout)
        suffix_NHZ = self._attend_suffix(
            q_NHZ[n_events:], k_NJZ[n_events:], v_NJZ[n_events:], prefix, layout, n_query_tokens
        )
        mixed_ND: Tensor = self.out(torch.cat([history_EHZ, suffix_NHZ]).flatten(1))
        return mixed_ND

    def _prefix(self, k_EJZ: Tensor, v_EJZ: Tensor, layout: Layout) -> Prefix:
        return Prefix(*(pad(x_EJZ, layout.history_slot_E, layout.history_shape) for x_EJZ in (k_EJZ, v_EJZ)))

    def _attend_history(self, q_EHZ: Tensor, prefix: Prefix, layout: Layout) -> Tensor:
        q_GTHZ = pad(q_EHZ, layout.history_slot_E, layout.history_shape)
        q_GHTZ, k_GJTZ, v_GJTZ = (x.transpose(1, 2) for x in (q_GTHZ, *prefix))
        mixed_GHTZ = causal_attention(q_GHTZ, k_GJTZ, v_GJTZ)
        return mixed_GHTZ.transpose(1, 2).flatten(0, 1)[layout.history_slot_E]

    def _attend_suffix(
        self, q_NHZ: Tensor, k_NJZ: Tensor, v_NJZ: Tensor, prefix: Prefix, layout: Layout, n_query_tokens: int
    ) -> Tensor:
        """Attend from query and candidate tokens to the prefix, the query tokens of the request, and oneself."""
        if not len(q_NHZ):
            return q_NHZ
        slot_N, shape = layout.suffix_slot_N, layout.suffix_shape
        n_requests = len(layout.last_event_R)
        own_shape = (n_requests, n_query_tokens, self.n_kv_heads, self.width)
        repeats = self.n_heads // self.n_kv_heads
        own_k_RKJZ, own_v_RKJZ = (x_NJZ[: n_requests * n_query_tokens].reshape(own_shape) for x_NJZ in (k_NJZ, v_NJZ))
        q_GSHZ, k_GSJZ, v_GSJZ = (pad(x, slot_N, shape) for x in (q_NHZ, k_NJZ, v_NJZ))
        grouped_GSJPZ = q_GSHZ.view(*shape, self.n_kv_heads, repeats, self.width) / math.sqrt(self.width)
        past_GJPST = torch.einsum("gsjpz,gtjz->gjpst", grouped_GSJPZ, prefix.key_GTJZ)
        is_hidden_GST = torch.arange(past_GJPST.shape[-1]) >= layout.visible_GS.unsqueeze(-1)
        past_GJPST = past_GJPST.masked_fill(is_hidden_GST[:, None, None], float("-inf"))
        own_GJPSK = torch.einsum("gsjpz,gskjz->gjpsk", grouped_GSJPZ, own_k_RKJZ[layout.request_GS])
        self_GJPS1 = torch.einsum("gsjpz,gsjz->gjps", grouped_GSJPZ, k_GSJZ).unsqueeze(-1)
        is_query_GS1 = ~layout.is_candidate_GS.unsqueeze(-1)
        if n_query_tokens:  # a query token already stands among its request's query tokens
            self_GJPS1 = self_GJPS1.masked_fill(is_query_GS1[:, None, None], float("-inf"))
        weight = torch.cat([past_GJPST, own_GJPSK, self_GJPS1], dim=-1).softmax(-1)
        w_past, w_own, w_self = torch.split(weight, [past_GJPST.shape[-1], n_query_tokens, 1], dim=-1)
        mixed_GSJPZ = torch.einsum("gjpst,gtjz->gsjpz", w_past, prefix.value_GTJZ)
        mixed_GSJPZ = mixed_GSJPZ + torch.einsum("gjpsk,gskjz->gsjpz", w_own, own_v_RKJZ[layout.request_GS])
        mixed_GSJPZ = mixed_GSJPZ + torch.einsum("gjpsi,gsjz->gsjpz", w_self, v_GSJZ)
        return mixed_GSJPZ.flatten(2, 3).flatten(0, 1)[slot_N]


def pad(x_N: Tensor, slot_N: Tensor, shape: tuple[int, int]) -> Tensor:
    """Flat tokens (N, ...) to `shape` (segments, places, ...); zeros where no token stands."""
    padded = x_N.new_zeros((shape[0] * shape[1], *x_N.shape[1:]))
    return padded.index_copy(0, slot_N, x_N).view(*shape, *x_N.shape[1:])


def rotations(position_N: Tensor, *, width: int, base: float = 10_000.0) -> Tensor:
    """Complex rotations (N, Z / 2) of rotary positions."""
    frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=position_N.device) / width)
    angle = position_N.unsqueeze(-1) * frequency
    return torch.polar(torch.ones_like(angle), angle)


def rotate(x_NHZ: Tensor, rotation_NZ: Tensor) -> Tensor:
    """Turn each pair of a head's numbers by the token's position."""
    pairs = torch.view_as_complex(x_NHZ.float().reshape(*x_NHZ.shape[:-1], x_NHZ.shape[-1] // 2, 2))
    return torch.view_as_real(pairs * rotation_NZ.unsqueeze(1)).flatten(-2).to(x_NHZ.dtype)
