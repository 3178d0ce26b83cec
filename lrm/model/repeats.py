"""Items the user has chosen before: a pointer from a request to its own history.

A single state vector can name a taste, but not forty products that a household buys again and again. So an item's score
gains log(1 + sum of exp(weight) over its past events), where the weight of an event is learned from the request's
state, the event's state and how long ago it was: zero for an item never chosen, and growing with how often, how
recently and how fittingly it was. (Pointer networks, 1506.03134; for recommendation RepeatNet, 1812.02646.)

Shape suffixes: G segments, T events of the longest segment, E flat events, R requests, P predictions, C classes,
D model width, W pointer width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lrm.model.attention import pad
from lrm.tokens.prompt import Layout

REACH = 10.0
"""An optimizer step moves a lone number by about the learning rate; scaled so, it crosses several nats an epoch."""


class Repeats(nn.Module):
    """Log-weights of each request's past events.

    Shape:
        request_RD: (R, D), event_ED: (E, D).
        returns: (R, T), -inf where the request does not see the event.
    """

    def __init__(self, *, d_model: int, width: int = 16) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, width)
        self.key = nn.Linear(d_model, width, bias=False)
        self.worth = nn.Parameter(torch.tensor(0.3))
        """Weight of any past event, in units of `REACH`."""
        self.fading = nn.Parameter(torch.tensor(0.05))
        """Weight lost per hundred events since, in units of `REACH`."""

    def forward(self, request_RD: Tensor, event_ED: Tensor, layout: Layout) -> Tensor:
        """Weigh."""
        key_GTW = pad(self.key(event_ED), layout.history_slot_E, layout.history_shape)
        query_RW = self.query(request_RD) / math.sqrt(key_GTW.shape[-1])
        weight_RT = torch.einsum("rw,rtw->rt", query_RW, key_GTW[layout.segment_R])
        since_RT = layout.visible_R.unsqueeze(1) - torch.arange(key_GTW.shape[1])
        faded_RT = weight_RT + REACH * (self.worth - self.fading * since_RT / 100)
        return faded_RT.masked_fill(since_RT < 1, float("-inf"))


def repeat_bonus(weight_PT: Tensor, class_PT: Tensor, *, n_classes: int) -> Tensor:
    """(P, C) what past events add to the score of each class.

    Args:
        weight_PT: log-weights of the events.
        class_PT: class of each event's item, -1 where it is none of the classes.
        n_classes: C.
    """
    amount_PT = weight_PT.exp().masked_fill(class_PT < 0, 0.0)
    return weight_PT.new_zeros(len(weight_PT), n_classes).scatter_add(1, class_PT.clamp(min=0), amount_PT).log1p()
