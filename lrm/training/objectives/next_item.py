"""Next item: predict each event's item from the history before it.

Shape suffixes: P predictions, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lrm.model.recommender import States
from lrm.training.context import Context
from lrm.training.targets import seen_before


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean negative log-probability of the next item over events, in nats; 0 without predictable events."""
    targets = context.targets
    with context.precision():
        generated, before_PD = context.generated, states.event_ED[torch.as_tensor(targets.event_P - 1)]
        bias = context.recommender.seen_bias
        seen = None if bias is None else seen_before(context.batch, targets.event_P)
        if generated.is_full:
            return generated.mean_nll(before_PD, targets.event_row_P, seen, bias)
        return -generated.log_p(before_PD, targets.event_row_P, seen, bias).sum() / max(1, len(targets.event_P))
