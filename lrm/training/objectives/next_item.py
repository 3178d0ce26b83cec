"""Next item: predict each event's item from the history before it."""

from __future__ import annotations

from torch import Tensor

from lrm.model.states import States
from lrm.training.context import Context


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean negative log-probability of the next item over events, in nats; 0 without predictable events."""
    targets = context.targets
    with context.precision():
        return context.likelihood.next_item(states, targets.event_P, targets.event_row_P)
