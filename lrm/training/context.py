"""What the objectives of one step share: the batch, its targets, and the items that predictions are told apart from."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

from lrm.model.recommender import Recommender
from lrm.tokens.prompt import Batch
from lrm.training.generated import Generated
from lrm.training.targets import Targets


class Context:
    """One step as its objectives see it."""

    def __init__(
        self,
        recommender: Recommender,
        batch: Batch,
        targets: Targets,
        draw_items: Callable[[], Generated],
        *,
        bfloat16: bool = False,
    ) -> None:
        """Keep what the objectives read.

        Args:
            recommender: the model in training.
            batch: the prompts of this step.
            targets: what the batch has to predict.
            draw_items: draws negatives and makes the vectors of items; called once, by the first objective that asks.
            bfloat16: whether `precision` is bfloat16.
        """
        self.recommender, self.batch, self.targets = recommender, batch, targets
        self._draw_items, self._bfloat16 = draw_items, bfloat16

    @cached_property
    def generated(self) -> Generated:
        """Log-probabilities of items, for all objectives of the step."""
        return self._draw_items()

    def precision(self) -> torch.autocast:
        """Enter the precision of the step's matrix products; an objective is called outside it."""
        return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=self._bfloat16)
