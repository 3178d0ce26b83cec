"""Make the batches of training and validation from an encoded corpus.

Shape suffixes: G segments, R requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lrm.config import BUDGETS
from lrm.features.tables import Tables
from lrm.model.recommender import Recommender
from lrm.model.scoring import SCORING_TOKENS
from lrm.tokens.corpus import Corpus
from lrm.tokens.memmap import memory_mapped
from lrm.tokens.prompt import Batch, build_batch, request_batches
from lrm.tokens.segments import Segments, segment_tokens, token_batches
from lrm.training.targets import Targets, draw_targets
from lrm.training.training_windows import overlapping_windows, shifted_windows

MAX_VALIDATION_REQUESTS = 4000
"""Every n-th request of the validation split is used, so that there are not many more than these."""


def training_corpus(tables: Tables, recommender: Recommender, folder: Path) -> Corpus:
    """Encode the tables as the recommender reads them; a large corpus goes to files in `folder`."""
    return memory_mapped(recommender.encode(tables), folder)


class Epoch(NamedTuple):
    """What one epoch reads."""

    segments: Segments
    rows: list[np.ndarray]
    """Rows of the segments in each batch, in the order of the steps."""

    def batch(self, place: int) -> Segments:
        """The segments of one batch."""
        return self.segments.pick(self.rows[place])


class TrainingData:
    """The examples of a corpus as batches for a recommender.

    Batches are planned by the length that prompts have if all tokens are soft. So every variant of a preset reads the
    same examples in the same order.
    """

    def __init__(self, corpus: Corpus, recommender: Recommender) -> None:
        self.corpus, self._recommender = corpus, recommender
        self._config = recommender.config.training
        self._shape, self._planned = recommender.prompt_shape(), recommender.planned_shape()

    def n_tokens(self, *, seed: int) -> int:
        """Count the tokens that the first epoch reads, as if all tokens were soft."""
        segments = self._segments(np.random.default_rng((seed, 0)))
        return int(segment_tokens(self.corpus, segments, self._planned).sum())

    def n_epochs(self, *, seed: int) -> int:
        """Count the epochs that make about `max_steps` steps; at least 1."""
        n_tokens = self.n_tokens(seed=seed)
        return max(1, round(self._config.max_steps * self._config.batch_tokens / max(1, n_tokens)))

    def epoch(self, rng: np.random.Generator) -> Epoch:
        """Draw the batches of one epoch."""
        segments = self._segments(rng)
        lengths = segment_tokens(self.corpus, segments, self._planned)
        return Epoch(segments, list(token_batches(lengths, batch_tokens=self._config.batch_tokens, rng=rng)))

    def batch(self, segments: Segments, rng: np.random.Generator) -> Batch:
        """Build the prompts of some segments; `rng` draws how many tokens queries and candidates have, if elastic."""
        budget = int(rng.choice(BUDGETS)) if self._recommender.config.tokens.elastic else None
        return build_batch(self.corpus, segments, self._recommender.prompt_shape(budget))

    def targets(self, batch: Batch, rng: np.random.Generator) -> Targets:
        """Collect what a batch has to predict; `rng` draws which targets of a request are used."""
        return draw_targets(batch, self.corpus, rng)

    @cached_property
    def validation_requests(self) -> np.ndarray:
        """(R,) the requests of the corpus that validation uses."""
        requests = np.flatnonzero(self.corpus.split_R == 1)
        return requests[:: max(1, len(requests) // MAX_VALIDATION_REQUESTS)]

    def validation(self) -> Iterator[Batch]:
        """Build the prompts of all validation requests."""
        return request_batches(self.corpus, self.validation_requests, self._shape, batch_tokens=SCORING_TOKENS)

    def _segments(self, rng: np.random.Generator) -> Segments:
        if self._config.events_only:
            return shifted_windows(self.corpus, max_history=self._shape.max_history, rng=rng)
        return self._windows

    @cached_property
    def _windows(self) -> Segments:
        return overlapping_windows(self.corpus, max_history=self._shape.max_history)
