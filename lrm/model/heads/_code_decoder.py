"""A small decoder that writes the codes of an item one after the other, looking back at the history.

It is a transformer decoder as of 1706.03762, pre-norm: the codes so far see each other, and by cross-attention the
states of the events that a prediction may see. A learned null entry is always visible, for who has no event yet. The
first position is the state that the prediction is made from.

Shape suffixes: G segments, T events of the longest segment, P predictions, M predictions of a segment, L positions,
H heads, Z width of a head, D model width, K codes of a level, J past events and the null entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Predictions(NamedTuple):
    """Where codes are predicted."""

    start_PD: Tensor
    """The state that each prediction is made from."""
    segment_P: Tensor
    """Whose events it sees."""
    visible_P: Tensor
    """How many of them."""


class Groups(NamedTuple):
    """Predictions by segment: attention reads the events of a segment once for all of them."""

    slot_P: Tensor
    """Place of each in the padded (G, M)."""
    is_hidden_GMJ: Tensor
    """Whether a prediction must not see an event."""

    def pad(self, x_PLHZ: Tensor) -> Tensor:
        """(P, L, H, Z) to (G, H, M * L, Z)."""
        n_groups, n_places = self.is_hidden_GMJ.shape[:2]
        padded = x_PLHZ.new_zeros(n_groups * n_places, *x_PLHZ.shape[1:]).index_copy(0, self.slot_P, x_PLHZ)
        return padded.view(n_groups, n_places * x_PLHZ.shape[1], *x_PLHZ.shape[2:]).transpose(1, 2)

    def unpad(self, x_GHNZ: Tensor, n_positions: int) -> Tensor:
        """Back to (P, L, H, Z)."""
        x_GNHZ = x_GHNZ.transpose(1, 2)
        return x_GNHZ.reshape(-1, n_positions, *x_GNHZ.shape[2:])[self.slot_P]


def group(predictions: Predictions, *, n_groups: int, n_events: int) -> Groups:
    """Lay predictions out by segment."""
    segment_P = predictions.segment_P
    order = segment_P.argsort(stable=True)
    count_G = torch.bincount(segment_P, minlength=n_groups)
    first_G = count_G.cumsum(0) - count_G
    place_P = torch.empty_like(segment_P)
    place_P[order] = torch.arange(len(segment_P)) - first_G[segment_P[order]]
    n_places = max(1, int(count_G.max()) if n_groups else 0)
    slot_P = segment_P * n_places + place_P
    visible_GM = torch.zeros(n_groups * n_places, dtype=torch.int64)
    visible_GM = visible_GM.index_copy(0, slot_P, predictions.visible_P).view(n_groups, n_places)
    is_hidden_GMT = torch.arange(n_events) >= visible_GM.unsqueeze(-1)
    return Groups(slot_P, functional.pad(is_hidden_GMT, (1, 0), value=False))


class Layer(nn.Module):
    """Codes see codes, then events, then a feed-forward layer."""

    def __init__(self, *, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(3))
        self.own = nn.Linear(d_model, 3 * d_model, bias=False)
        self.query = nn.Linear(d_model, d_model, bias=False)
        self.key_value = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out = nn.ModuleList(nn.Linear(d_model, d_model, bias=False) for _ in range(2))
        self.feed = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_PLD: Tensor, event_GJD: Tensor, groups: Groups) -> Tensor:
        """(P, L, D) to (P, L, D)."""
        own_PLD = self.norms[0](x_PLD)
        q, k, v = (self._split(x).transpose(1, 2) for x in self.own(own_PLD).chunk(3, dim=-1))
        seen_PHLZ = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_PLD = x_PLD + self.dropout(self.out[0](seen_PHLZ.transpose(1, 2).flatten(-2)))
        past_PLD = self._split(self.query(self.norms[1](x_PLD)))
        k, v = (self._split(x).transpose(1, 2) for x in self.key_value(event_GJD).chunk(2, dim=-1))
        mask_GNJ = ~groups.is_hidden_GMJ.repeat_interleave(x_PLD.shape[1], dim=1)
        seen_GHNZ = functional.scaled_dot_product_attention(groups.pad(past_PLD), k, v, mask_GNJ.unsqueeze(1))
        x_PLD = x_PLD + self.dropout(self.out[1](groups.unpad(seen_GHNZ, x_PLD.shape[1]).flatten(-2)))
        fed_PLD = self.feed(self.norms[2](x_PLD))
        return cast(Tensor, x_PLD + self.dropout(fed_PLD))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.n_heads, -1)


class CodeDecoder(nn.Module):
    """Log-probabilities of codes, level by level."""

    def __init__(self, *, sizes: Sequence[int], d_model: int, n_heads: int, n_layers: int, dropout: float) -> None:
        """Build it.

        Args:
            sizes: codes of each level.
            d_model: width.
            n_heads: attention heads.
            n_layers: layers.
            dropout: share of numbers hidden in training.
        """
        super().__init__()
        self.null_D = nn.Parameter(torch.randn(d_model) * 0.02)
        self.level_LD = nn.Parameter(torch.randn(len(sizes), d_model) * 0.02)
        self.codes = nn.ModuleList(nn.Embedding(size, d_model) for size in sizes[:-1])
        self.layers = nn.ModuleList(Layer(d_model=d_model, n_heads=n_heads, dropout=dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)
        self.heads = nn.ModuleList(nn.Linear(d_model, size) for size in sizes)
        for table in self.codes:
            nn.init.normal_(cast(nn.Embedding, table).weight, std=0.05)

    def forward(self, predictions: Predictions, event_GTD: Tensor, code_PL: Tensor) -> Tensor:
        """(P, L + 1, D) the states after the start and after each of L codes."""
        known = [table(code_P) for table, code_P in zip(self.codes, code_PL.unbind(1), strict=False)]
        x_PLD = torch.stack([predictions.start_PD, *known], dim=1) + self.level_LD[: len(known) + 1]
        null_G1D = self.null_D.expand(len(event_GTD), 1, -1)
        event_GJD = torch.cat([null_G1D.to(event_GTD.dtype), event_GTD], dim=1)
        groups = group(predictions, n_groups=len(event_GTD), n_events=event_GTD.shape[1])
        for layer in self.layers:
            x_PLD = layer(x_PLD, event_GJD, groups)
        return cast(Tensor, self.norm(x_PLD))

    def next_code(self, predictions: Predictions, event_GTD: Tensor, code_PL: Tensor) -> Tensor:
        """(P, K) log-probabilities of the code after those so far (P, L), which may be none."""
        state_PD = self(predictions, event_GTD, code_PL)[:, -1]
        return cast(Tensor, self.heads[code_PL.shape[1]](state_PD).log_softmax(-1))

    def log_p(self, predictions: Predictions, event_GTD: Tensor, code_PL: Tensor) -> Tensor:
        """(P,) log-probability of all codes of an item."""
        state_PLD = self(predictions, event_GTD, code_PL[:, :-1])
        each = [
            head(state_PD).log_softmax(-1).gather(1, code_P.unsqueeze(1)).squeeze(1)
            for head, state_PD, code_P in zip(self.heads, state_PLD.unbind(1), code_PL.unbind(1), strict=True)
        ]
        return torch.stack(each).sum(0)
