"""What the objectives of one step share: the batch, its targets, and the items that predictions are told apart from."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from lrm.model.recommender import Recommender
from lrm.tokens.corpus import Corpus
from lrm.tokens.prompt import Batch
from lrm.training.generated import Generated, Negatives
from lrm.training.targets import event_targets, request_targets


class Context:
    """One step as its objectives see it.

    Targets and items are drawn when an objective first asks for them, and are the same for all objectives of the step.
    """

    def __init__(
        self,
        recommender: Recommender,
        corpus: Corpus,
        batch: Batch,
        negatives: Negatives,
        *,
        rng: np.random.Generator,
        generator: torch.Generator | None = None,
        bfloat16: bool = False,
    ) -> None:
        """Keep what the objectives read.

        Args:
            recommender: the model in training.
            corpus: the examples.
            batch: the prompts of this step, of the corpus.
            negatives: the distribution that negatives are drawn from.
            rng: draws targets and negatives.
            generator: draws the item identities to hide; None hides none, as in validation.
            bfloat16: whether `precision` is bfloat16.
        """
        self.recommender, self.corpus, self.batch = recommender, corpus, batch
        self.rng = rng
        self._negatives, self._generator, self._bfloat16 = negatives, generator, bfloat16

    def precision(self) -> torch.autocast:
        """Enter the precision of the step's matrix products; an objective is called outside it."""
        return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=self._bfloat16)

    @cached_property
    def event_targets(self) -> np.ndarray:
        """(P,) rows of the batch's events that the event before them has to predict."""
        return event_targets(self.batch, self.corpus)

    @cached_property
    def request_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """(Q,) requests of the batch, and (Q,) for each the place in the corpus of one of its targets."""
        return request_targets(self.batch, self.corpus, self.rng)

    @cached_property
    def generated(self) -> Generated:
        """Log-probabilities of items: the vectors of targets and negatives are made once for a step."""
        corpus, (_, places) = self.corpus, self.request_targets
        events = corpus.event_row_E[self.batch.events[self.event_targets]]
        targets = np.concatenate([events, corpus.target_row_T[places]])
        return Generated(self.recommender, corpus, self._negatives, targets, rng=self.rng, generator=self._generator)
