"""Training objectives: each module of this folder is one, and `TrainingConfig.objectives` maps its name to its weight.

To add an objective, add a module with a function `loss` to this folder, or to another package under the entry point
group `lrm.training.objectives` (see `lrm.parts`), and name it in a preset.

This file imports no torch, so that a command line can list the objectives quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Protocol, cast

from lrm.parts import check_options, part

if TYPE_CHECKING:
    from torch import Tensor

    from lrm.model.states import States
    from lrm.training.context import Context


class Objective(Protocol):
    """Offer what a module of this folder offers."""

    def loss(self, states: States, context: Context, **options: float) -> Tensor:
        """Compute the mean loss of one step.

        Args:
            states: what the decoder makes of the batch.
            context: the batch, the targets, and what the item head says of items.
            options: keyword-only arguments of the module's function, from `TrainingConfig.objective_options`.

        Returns:
            A scalar in nats; 0 for a batch with nothing to predict.
        """


Loss = Callable[["States", "Context"], "Tensor"]
"""The function of an objective, with its options."""


def objectives(names: Iterable[str], options: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Loss]:
    """Import the functions of objectives by name, in the given order.

    Args:
        names: of the objectives.
        options: of each objective, by its name.

    Raises:
        ConfigError: an objective is not installed, or has no option of that name.
    """
    losses: dict[str, Loss] = {}
    for name in names:
        objective, chosen = cast(Objective, part(__name__, name)), (options or {}).get(name, {})
        check_options(f"the objective {name!r}", objective.loss, chosen)
        losses[name] = partial(cast(Callable[..., Any], objective.loss), **chosen)
    return losses


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Add the losses up, each times its weight, in the order of the weights."""
    return reduce(add, (weight * losses[name] for name, weight in weights.items()))
