"""Retrieval: predict the items that follow each request.

Shape suffixes: Q predictions, R requests, T events of the longest segment.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrm.model.recommender import States
from lrm.model.repeats import mixture
from lrm.tokens.prompt import event_rows
from lrm.training.context import Context
from lrm.training.targets import seen_by


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean negative log-probability over requests, in nats; 0 without a request that has targets.

    A request with several targets counts once: its loss is the mean over its targets of this step.
    """
    batch, requests, row_Q = context.batch, context.targets.request_Q, context.targets.request_row_Q
    if not len(requests):
        return torch.zeros(())
    request_Q = torch.as_tensor(requests)
    with context.precision():
        row_RT = event_rows(batch.layout, batch.row_E)
        is_same_QT = torch.as_tensor(row_RT[requests] == row_Q[:, None])
        pointed_Q = (states.pointed.share_RT[request_Q] * is_same_QT).sum(-1)
        bias = context.recommender.seen_bias
        seen = None if bias is None else seen_by(batch, requests)
        log_generated_Q = context.generated.log_p(states.request_RD[request_Q], row_Q, seen, bias)
        log_p_Q = mixture(log_generated_Q, pointed_Q, states.pointed.gate_R[request_Q])
        weight_Q = torch.as_tensor(1.0 / np.bincount(requests, minlength=1)[requests]).float()
        return -(log_p_Q * weight_Q).sum() / max(1, len(np.unique(requests)))
