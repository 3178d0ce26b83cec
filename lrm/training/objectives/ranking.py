"""Ranking: predict the outcome of each candidate.

Shape suffixes: C candidates.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from lrm.model.states import States
from lrm.training.context import Context


def loss(states: States, context: Context) -> Tensor:
    """Compute the mean log loss of the candidates' outcomes, in nats; 0 for a batch without candidates."""
    if not len(context.batch.candidates):
        return states.candidate_logit_C.sum()
    return functional.binary_cross_entropy_with_logits(states.candidate_logit_C, context.targets.label_C)
