"""Training objectives: each module of this folder is one, and `TrainingConfig.objectives` maps its name to its weight.

To add an objective, add a module with a function `loss` to this folder, or to another package under the entry point
group `lrm.training.objectives` (see `lrm.parts`), and name it in a preset.

This file imports no torch, so that a command line can list the objectives quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Protocol, cast

from lrm.parts import part

if TYPE_CHECKING:
    from torch import Tensor

    from lrm.model.states import States
    from lrm.training.context import Context


class Objective(Protocol):
    """Offer what a module of this folder offers."""

    def loss(self, states: States, context: Context) -> Tensor:
        """Compute the mean loss of one step.

        Args:
            states: what the decoder makes of the batch.
            context: the batch, the corpus, the targets, and the log-probabilities of items.

        Returns:
            A scalar in nats; 0 for a batch with nothing to predict.
        """


def objectives(names: Iterable[str]) -> dict[str, Objective]:
    """Import objectives by name, in the given order.

    Raises:
        ConfigError: neither this project nor an installed package has an objective of that name.
    """
    return {name: cast(Objective, part(__name__, name)) for name in names}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Add the losses up, each times its weight, in the order of the weights."""
    return reduce(add, (weight * losses[name] for name, weight in weights.items()))
