"""The losses of a preset's objectives, on batches of some data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lrm.model.device import seeded
from lrm.model.heads import Likelihood
from lrm.model.recommender import Recommender
from lrm.tokens.factory import forget_identities
from lrm.tokens.prompt import Batch
from lrm.tokens.segments import Segments
from lrm.training.context import Context
from lrm.training.data import TrainingData
from lrm.training.objectives import objectives, weighted_sum


class Losses:
    """The losses of a recommender's objectives."""

    def __init__(self, recommender: Recommender, data: TrainingData) -> None:
        """Import the objectives of the recommender's preset.

        Raises:
            ConfigError: an objective is not installed.
        """
        self._recommender, self._data = recommender, data
        self._config = recommender.config.training
        self._objectives = objectives(self._config.objectives, self._config.objective_options)
        self._learner = recommender.head.learner(recommender.factory, data.corpus)

    def of_step(self, segments: Segments, *, seed: int, at: int) -> dict[str, Tensor]:
        """Compute the loss of each objective on one batch, with every random choice taken from (seed, at)."""
        torch.manual_seed(hash((seed, at)) & 0x7FFFFFFF)  # dropout reads the global generator
        generator = seeded(seed * 1_000_003 + at)
        rng = np.random.default_rng((seed, at, 1))
        self._recommender.train()
        batch = self._data.batch(segments, rng)
        batch = drop_identities(batch, ratio=self._config.id_dropout, generator=generator)
        context = self.context(batch, rng, generator=generator, bfloat16=self._config.bfloat16)
        with context.precision():
            states = self._recommender(batch)
        return {name: loss(states, context) for name, loss in self._objectives.items()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Add the losses up, each times its weight."""
        return weighted_sum(losses, self._config.objectives)

    def context(
        self,
        batch: Batch,
        rng: np.random.Generator,
        *,
        generator: torch.Generator | None = None,
        bfloat16: bool = False,
    ) -> Context:
        """Make what the objectives read of a batch.

        Args:
            batch: of this data.
            rng: draws targets and negatives.
            generator: draws the item identities to hide; None hides none, as in validation.
            bfloat16: whether matrix products are in bfloat16.
        """
        targets = self._data.targets(batch, rng)

        def draw_items() -> Likelihood:
            return self._learner.step(batch, targets.rows, rng=rng, generator=generator)

        return Context(batch, targets, draw_items, rng=rng, bfloat16=bfloat16)


def drop_identities(batch: Batch, *, ratio: float, generator: torch.Generator) -> Batch:
    """Return the batch with a share of its items' identities hidden."""
    return batch._replace(
        identity_E=forget_identities(batch.identity_E, share=ratio, generator=generator),
        identity_C=forget_identities(batch.identity_C, share=ratio, generator=generator),
    )
