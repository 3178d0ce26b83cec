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

from typing import Any, NamedTuple

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
    """What is known of queries and keys before any layer; each (G, Q, K), or (1, Q, K) where all segments are alike."""

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
        self.time_bias = nn.Parameter(0.02 * torch.randn(N_BUCKETS)) if time_bias else None
        self.position_bias = nn.Parameter(0.02 * torch.randn(2 * self.longest - 1)) if position_bias else None
        nn.init.normal_(self.uvqk.weight, std=0.02)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, layout: Layout, n_tokens: int) -> Prepared:
        """Return positions, time differences and visibility of all pairs of tokens that may see one another."""
        times, n_history, n_prefix = token_times(layout), len(layout.history_slot_H), len(layout.prefix_slot_N)
        own_N, asking_N, longest = (
            torch.as_tensor(times.own_N),
            torch.as_tensor(times.asking_N),
            layout.history_shape[1],
        )
        past_place = (layout.prefix_slot_N, (layout.bias_GSU.shape[0], layout.bias_GSU.shape[2]))
        suffix_place = (layout.suffix_slot_N, layout.suffix_shape)
        own_GU = pad(own_N[:n_prefix], *past_place)
        history = None
        if n_tokens == len(layout.position_N):
            asking_GT = pad(asking_N[:n_history], layout.history_slot_H, layout.history_shape)
            history = Pairs(
                self._offsets(longest),  # the positions of history tokens are their places
                time_bucket(_apart(asking_GT, own_GU[:, :longest])),
                torch.ones(1, longest, longest, dtype=torch.bool).tril(),
            )
        position_GU = pad(layout.position_N[:n_prefix], *past_place)
        position_GS = pad(layout.position_N[n_history:], *suffix_place)
        past = Pairs(
            self._offset(_apart(position_GS, position_GU)),
            time_bucket(_apart(pad(asking_N[n_history:], *suffix_place), own_GU)),
            layout.bias_GSU == 0,
        )
        # A candidate's tokens ask at the time at which they happen, and all see one another.
        together_111 = torch.zeros(1, 1, 1, dtype=torch.long)
        own = Pairs(self._offsets(layout.shape.per_candidate), together_111, together_111 == 0)
        return Prepared(history, past, own)

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

    def _offset(self, apart: Tensor) -> Tensor:
        """Return the row of a difference of positions in the table."""
        last = self.longest - 1
        return apart.clamp(-last, last) + last

    def _offsets(self, n_places: int) -> Tensor:
        """Return those rows (1, Q, K) for tokens that stand one after the other."""
        place_1T = torch.arange(n_places).unsqueeze(0)
        return self._offset(_apart(place_1T, place_1T))

    def _attend(self, q_GQHZ: Tensor, k_GKHZ: Tensor, v_GKHZ: Tensor, pairs: Pairs) -> Tensor:
        """Return (G, Q, H, Z): the sum of the values, each by its own weight."""
        fit_GHQK = q_GQHZ.transpose(1, 2) @ k_GKHZ.permute(0, 2, 3, 1)
        for table, row_GQK in ((self.position_bias, pairs.offset_GQK), (self.time_bias, pairs.bucket_GQK)):
            if table is not None:
                fit_GHQK = fit_GHQK + _Lookup.apply(table, row_GQK).unsqueeze(1)  # type: ignore[no-untyped-call]
        weight_GHQK = functional.silu(fit_GHQK) / self.longest * pairs.sees_GQK.unsqueeze(1)
        return (weight_GHQK.to(v_GKHZ.dtype) @ v_GKHZ.transpose(1, 2)).transpose(1, 2)


class _Lookup(torch.autograd.Function):
    """Numbers of a table by row; the gradient is one pass over the rows, where torch's own takes many times as long."""

    @staticmethod
    def forward(ctx: Any, table_X: Tensor, row: Tensor) -> Tensor:
        """Return a number for each row."""
        ctx.save_for_backward(row)
        ctx.n_rows = len(table_X)
        return table_X[row]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Add up the gradients of each row."""
        (row,) = ctx.saved_tensors
        by_row_X = torch.bincount(row.flatten(), gradient.double().flatten(), minlength=ctx.n_rows).float()
        return by_row_X, None


def time_bucket(seconds: Tensor) -> Tensor:
    """Return the bucket of a time difference of either sign."""
    bucket = (seconds.abs().clamp(min=1.0).log() / BUCKET_WIDTH).floor().long()
    return bucket.clamp(max=N_BUCKETS - 1)


def _apart(query_GQ: Tensor, key_GK: Tensor) -> Tensor:
    """Return (G, Q, K): the differences of all pairs."""
    return query_GQ.unsqueeze(2) - key_GK.unsqueeze(1)
