"""What the objectives of one step share: the batch, its targets, and the items that predictions are told apart from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch

from lrm.model.heads import Likelihood
from lrm.tokens.prompt import Batch
from lrm.training.targets import Targets


class Context:
    """One step as its objectives see it."""

    def __init__(
        self,
        batch: Batch,
        targets: Targets,
        draw_items: Callable[[], Likelihood],
        *,
        rng: np.random.Generator,
        bfloat16: bool = False,
    ) -> None:
        """Keep what the objectives read.

        Args:
            batch: the prompts of this step.
            targets: what the batch has to predict.
            draw_items: draws negatives and makes the vectors of items; called once, by the first objective that asks.
            rng: for what an objective draws itself.
            bfloat16: whether `precision` is bfloat16.
        """
        self.batch, self.targets, self.rng = batch, targets, rng
        self._draw_items, self._bfloat16 = draw_items, bfloat16

    @cached_property
    def likelihood(self) -> Likelihood:
        """Log-probabilities of items by the model's head, for all objectives of the step."""
        return self._draw_items()

    def precision(self) -> torch.autocast:
        """Enter the precision of the step's matrix products; an objective is called outside it."""
        return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=self._bfloat16)
