"""Retrieval: predict the items that follow each request.

Shape suffixes: Q predictions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lrm.model.states import States
from lrm.training.context import Context


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean negative log-probability over requests, in nats; 0 without a request that has targets.

    A request with several targets counts once: its loss is the mean over its targets of this step.
    """
    requests = context.targets.request_Q
    if not len(requests):
        return torch.zeros(())
    with context.precision():
        log_p_Q = context.likelihood.at_requests(states, requests, context.targets.request_row_Q)
        weight_Q = torch.as_tensor(1.0 / np.bincount(requests, minlength=1)[requests]).float()
        return -(log_p_Q * weight_Q).sum() / max(1, len(np.unique(requests)))
