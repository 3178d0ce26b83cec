"""Items the user has chosen before: a pointer from a request to its own history.

One state vector can name a taste, but not forty products that a household buys again and again, least of all rare
ones. So what follows a request is a mixture: with a learned probability an item of the user's own history, where each
past event holds a share learned from the request's state, the event's state and how long ago it was; otherwise any item
of the catalogue. (Pointer-generator networks, 1704.04368; for recommendation RepeatNet, 1812.02646.) The weight of an
item's events together is raised to a learned power: a habit is more, or less, than the sum of its instances.

Shape suffixes: G segments, T events of the longest segment, E flat events, R requests, V items, D model width,
W pointer width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from lrm.model.attention import pad
from lrm.tokens.layout import Layout

REACH = 10.0
"""An optimizer step moves a lone number by about the learning rate; scaled so, it can matter within an epoch."""
NEVER = 1e-12
"""Probability under which an item counts as not in the history."""

SHUT = -50.0
"""Log-odds of a gate that lets nothing through."""


class Pointed(NamedTuple):
    """Where requests point."""

    share_RT: Tensor
    """Share of each event of the segment; sums to 1, or to 0 where the request sees no item of the catalogue."""
    gate_R: Tensor
    """Log-odds that the next item comes from the history; `SHUT` where there is nothing to point at."""


class CopyHead(nn.Module):
    """The pointer.

    Shape:
        request_RD: (R, D), event_ED: (E, D).
        returns: shares (R, T), gate (R,).
    """

    def __init__(self, *, d_model: int, width: int = 16) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, width)
        self.key = nn.Linear(d_model, width, bias=False)
        self.gate = nn.Linear(d_model, 1)
        self.fading = nn.Parameter(torch.tensor(0.05))
        """Weight lost per hundred events since, in units of `REACH`."""
        self.habit = nn.Parameter(torch.tensor(0.0))
        """Log of the power of an item's weight, in units of `REACH`."""

    def forward(self, request_RD: Tensor, event_ED: Tensor, layout: Layout) -> Pointed:
        """Point."""
        key_GTW = pad(self.key(event_ED), layout.event_slot_E, layout.events_shape)
        query_RW = self.query(request_RD) / math.sqrt(key_GTW.shape[-1])
        fit_RT = torch.einsum("rw,rtw->rt", query_RW, key_GTW[layout.segment_R])
        since_RT = layout.visible_R.unsqueeze(1) - torch.arange(key_GTW.shape[1])
        weight_RT = fit_RT - REACH * self.fading * since_RT / 100
        is_hidden_RT = (since_RT < 1) | ~layout.is_known_GT[layout.segment_R]
        lowest = torch.finfo(weight_RT.dtype).min
        share_RT = weight_RT.masked_fill(is_hidden_RT, lowest).softmax(-1).masked_fill(is_hidden_RT, 0.0)
        power = torch.exp(REACH * self.habit)
        gate_R = self.gate(request_RD).squeeze(-1).masked_fill(is_hidden_RT.all(-1), SHUT)
        return Pointed(raised(share_RT, layout.first_GT[layout.segment_R], power), gate_R)


def raised(share_RT: Tensor, first_RT: Tensor, power: Tensor) -> Tensor:
    """(R, T) shares where those of an item's events together are raised to a power, and sum to 1 again (or to 0).

    Args:
        share_RT: shares of events.
        first_RT: for each event, the place of the first one of its item.
        power: above 0; 1 changes nothing.
    """
    of_item_RT = torch.zeros_like(share_RT).scatter_add(1, first_RT, share_RT).gather(1, first_RT)
    raised_RT = share_RT * of_item_RT.clamp(min=NEVER) ** (power - 1)
    return raised_RT / raised_RT.sum(-1, keepdim=True).clamp(min=NEVER)


def nowhere(layout: Layout) -> Pointed:
    """What a recommender without a pointer points at: no event, with a gate that is shut."""
    n_requests, n_places = len(layout.visible_R), layout.events_shape[1]
    return Pointed(torch.zeros(n_requests, n_places), torch.full((n_requests,), SHUT))


def mixture(log_generated: Tensor, pointed: Tensor, gate: Tensor) -> Tensor:
    """Log-probability of items from that under the catalogue, the history's share of them, and the gate's log-odds."""
    from_history = functional.logsigmoid(gate) + pointed.clamp(min=NEVER).log()
    return torch.logaddexp(functional.logsigmoid(-gate) + log_generated, from_history)


def share_of_items(share_RT: Tensor, row_RT: Tensor, *, n_items: int) -> Tensor:
    """(R, V) the shares of each item's events together; `row_RT` is an event's item, -1 where there is no event."""
    held_RT = share_RT.masked_fill(row_RT < 0, 0.0)
    return share_RT.new_zeros(len(share_RT), n_items).scatter_add(1, row_RT.clamp(min=0), held_RT)
