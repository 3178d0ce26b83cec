"""HSTU (2402.17152): pointwise SiLU attention with position and time bias, a gate, and no feed-forward layer.

    u, v, q, k = SiLU(W norm(x)); A_ij = SiLU(q_i . k_j + p(i - j) + t(bucket(asking time of i - own time of j))) / N
    x = x + W_o dropout(u * norm(sum_j A_ij v_j))

N is `max_history`, a constant. There is no softmax. The norms of a layer have no weights. A token is told when what it
predicts happens: an event the time of the next event, a request its own time (`TELLS_NEXT_TIME`). Positions are
learned, absolute at the input and relative in p. The final norm is the decoder's RMS norm.

Shape suffixes: N flat tokens, D model width, H heads, Z head width, G segments, T padded length of the history, U of
history and query tokens, S of query and candidate tokens, Q queries and K keys of a padded product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm.config import ModelConfig
from lrm.model.attention import pad
from lrm.model.blocks import Kept
from lrm.model.blocks.sasrec import Stem as Stem
from lrm.model.cpu_kernels import Dropout
from lrm.tokens.layout import Layout
from lrm.tokens.times import token_times

TELLS_NEXT_TIME = True
N_BUCKETS = 129
"""Buckets of a time difference: 0 for a second or less, then one for each factor of about 1.35."""
BUCKET_WIDTH = 0.301
"""Width of a bucket, in natural logarithms of seconds."""
EPSILON = 1e-6


class Pairs(NamedTuple):
    """What is known of queries and keys before any layer; each (G, Q, K)."""

    offset_GQK: Tensor
    """Position of the query less that of the key, as a row of the table of offsets."""
    bucket_GQK: Tensor
    """Bucket of the time difference."""
    sees_GQK: Tensor


class Prepared(NamedTuple):
    """The pairs of a layout."""

    history: Pairs | None
    """History tokens, (G, T, T); None where an earlier pass read them."""
    past: Pairs
    """Query and candidate tokens over history and query tokens, (G, S, U)."""
    own: Pairs
    """The tokens of a candidate among themselves, the same for all candidates."""


class Block(nn.Module):
    """One layer.

    Args:
        config: its `ffn_multiple` and `n_kv_heads` are not read.
        time_bias: whether A has the term t; without it the block knows no time.
        position_bias: whether A has the term p.
    """

    def __init__(self, config: ModelConfig, *, time_bias: bool = True, position_bias: bool = True) -> None:
        super().__init__()
        d_model, self.longest = config.d_model, config.max_history
        self.heads = (config.n_heads, d_model // config.n_heads)
        self.uvqk = nn.Linear(d_model, 4 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = Dropout(config.dropout)
        self.time_bias = nn.Embedding(N_BUCKETS, 1) if time_bias else None
        self.position_bias = nn.Embedding(2 * self.longest - 1, 1) if position_bias else None
        for weights in (self.uvqk, self.time_bias, self.position_bias):
            if weights is not None:
                nn.init.normal_(weights.weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, layout: Layout, n_tokens: int) -> Prepared:
        """Return positions, time differences and visibility of all pairs of tokens that may see one another."""
        times, n_history, n_prefix = token_times(layout), len(layout.history_slot_H), len(layout.prefix_slot_N)
        own_N, asking_N = torch.as_tensor(times.own_N), torch.as_tensor(times.asking_N)
        past_shape = (layout.bias_GSU.shape[0], layout.bias_GSU.shape[2])
        key_GU2 = _placed(layout.position_N[:n_prefix], own_N[:n_prefix], layout.prefix_slot_N, past_shape)
        query_GS2 = _placed(
            layout.position_N[n_history:], asking_N[n_history:], layout.suffix_slot_N, layout.suffix_shape
        )
        history = None
        if n_tokens == len(layout.position_N):
            place = (layout.history_slot_H, layout.history_shape)
            query_GT2 = _placed(layout.position_N[:n_history], asking_N[:n_history], *place)
            longest = layout.history_shape[1]
            causal_1TT = torch.ones(longest, longest, dtype=torch.bool).tril().unsqueeze(0)
            history = self._pairs(query_GT2, key_GU2[:, :longest], causal_1TT)
        # A candidate's tokens ask at the time at which they happen, and stand one after the other.
        candidate_1K2 = torch.zeros(1, layout.shape.per_candidate, 2, dtype=torch.float64)
        candidate_1K2[0, :, 0] = torch.arange(layout.shape.per_candidate)
        every_111 = torch.ones(1, 1, 1, dtype=torch.bool)
        past = self._pairs(query_GS2, key_GU2, layout.bias_GSU == 0)
        return Prepared(history, past, self._pairs(candidate_1K2, candidate_1K2, every_111))

    def forward(
        self, x_ND: Tensor, layout: Layout, prepared: Prepared, past: Kept | None = None
    ) -> tuple[Tensor, Kept]:
        """Map (N, D) to (N, D), and return the keys and values of the history."""
        n_history, n_prefix = len(layout.history_slot_H), len(layout.prefix_slot_N)
        normed_ND = functional.layer_norm(x_ND, x_ND.shape[-1:], eps=EPSILON)
        u_ND, v_ND, q_ND, k_ND = functional.silu(self.uvqk(normed_ND)).chunk(4, dim=-1)
        v_NHZ, q_NHZ, k_NHZ = (part_ND.view(-1, *self.heads) for part_ND in (v_ND, q_ND, k_ND))
        n_asking = n_history if past is None else 0
        if past is not None:
            k_NHZ, v_NHZ = torch.cat([past[0], k_NHZ]), torch.cat([past[1], v_NHZ])
        past_shape = (layout.bias_GSU.shape[0], layout.bias_GSU.shape[2])
        k_GUHZ, v_GUHZ = (pad(x_NHZ[:n_prefix], layout.prefix_slot_N, past_shape) for x_NHZ in (k_NHZ, v_NHZ))
        mixed = []
        if prepared.history is not None:
            longest = layout.history_shape[1]
            q_GTHZ = pad(q_NHZ[:n_history], layout.history_slot_H, layout.history_shape)
            mixed_GTHZ = self._attend(q_GTHZ, k_GUHZ[:, :longest], v_GUHZ[:, :longest], prepared.history)
            mixed.append(mixed_GTHZ.flatten(0, 1)[layout.history_slot_H])
        if len(q_NHZ) > n_asking:
            q_GSHZ = pad(q_NHZ[n_asking:], layout.suffix_slot_N, layout.suffix_shape)
            mixed_NHZ = self._attend(q_GSHZ, k_GUHZ, v_GUHZ, prepared.past).flatten(0, 1)[layout.suffix_slot_N]
            n_query = n_prefix - n_history
            shape = (-1, layout.shape.per_candidate, *self.heads)
            candidates = (q_NHZ[n_asking + n_query :], k_NHZ[n_prefix:], v_NHZ[n_prefix:])
            q_CKHZ, k_CKHZ, v_CKHZ = (x_NHZ.reshape(shape) for x_NHZ in candidates)
            own_NHZ = self._attend(q_CKHZ, k_CKHZ, v_CKHZ, prepared.own).flatten(0, 1)
            mixed += [mixed_NHZ[:n_query], mixed_NHZ[n_query:] + own_NHZ]
        mixed_ND = torch.cat(mixed).flatten(1) if mixed else v_ND[:0]
        gated_ND = u_ND * functional.layer_norm(mixed_ND, mixed_ND.shape[-1:], eps=EPSILON)
        out_ND: Tensor = x_ND + self.out(self.dropout(gated_ND))
        return out_ND, (k_NHZ[:n_history], v_NHZ[:n_history])

    def _pairs(self, query_GQ2: Tensor, key_GK2: Tensor, sees_GQK: Tensor) -> Pairs:
        """Return the pairs of tokens, each given by position and time."""
        apart_GQK2 = query_GQ2.unsqueeze(2) - key_GK2.unsqueeze(1)
        last = self.longest - 1
        return Pairs(
            apart_GQK2[..., 0].clamp(-last, last).long() + last,
            time_bucket(apart_GQK2[..., 1]),
            sees_GQK,
        )

    def _attend(self, q_GQHZ: Tensor, k_GKHZ: Tensor, v_GKHZ: Tensor, pairs: Pairs) -> Tensor:
        """Return (G, Q, H, Z): the sum of the values, each by its own weight."""
        fit_GHQK = q_GQHZ.transpose(1, 2) @ k_GKHZ.permute(0, 2, 3, 1)
        for table, row_GQK in ((self.position_bias, pairs.offset_GQK), (self.time_bias, pairs.bucket_GQK)):
            if table is not None:
                fit_GHQK = fit_GHQK + table(row_GQK).squeeze(-1).unsqueeze(1)
        weight_GHQK = functional.silu(fit_GHQK) / self.longest * pairs.sees_GQK.unsqueeze(1)
        return (weight_GHQK.to(v_GKHZ.dtype) @ v_GKHZ.transpose(1, 2)).transpose(1, 2)


def time_bucket(seconds: Tensor) -> Tensor:
    """Return the bucket of a time difference of either sign."""
    bucket = (seconds.abs().clamp(min=1.0).log() / BUCKET_WIDTH).floor().long()
    return bucket.clamp(max=N_BUCKETS - 1)


def _placed(position_N: Tensor, time_N: Tensor, slot_N: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return (G, places, 2): position and time of the token at each padded place, 0 where none stands."""
    return pad(torch.stack([position_N.double(), time_N], -1), slot_N, shape)
