"""Ranking: predict the outcome of each candidate.

Shape suffixes: C candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lrm.model.recommender import States
from lrm.training.context import Context


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean log loss of the candidates' outcomes, in nats; 0 for a batch without candidates."""
    batch = context.batch
    if not len(batch.candidates):
        return states.candidate_logit_C.sum()
    label_C = torch.as_tensor(context.corpus.label_C[batch.candidates])
    return functional.binary_cross_entropy_with_logits(states.candidate_logit_C, label_C)
