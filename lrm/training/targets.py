"""What a batch has to predict: the next item at events, what follows at requests, and the outcome of candidates.

Shape suffixes: E events, P predictions at events, Q predictions at requests, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.tokens.corpus import Corpus
from lrm.tokens.prompt import Batch

MAX_TARGETS = 8
"""Targets of a request that one step uses: neighbours in its list of targets, from a random start."""


class Targets(NamedTuple):
    """The targets of a batch."""

    event_P: np.ndarray
    """Rows of the batch's events that the event before them has to predict."""
    event_row_P: np.ndarray
    """Catalogue row of each of these."""
    request_Q: np.ndarray
    """Requests of the batch; a request with several targets stands here several times."""
    request_row_Q: np.ndarray
    """Catalogue row of one target of each of these."""
    label_C: Tensor
    """Outcome of each candidate: 0 or 1, float32."""

    @property
    def rows(self) -> np.ndarray:
        """(P + Q,) catalogue rows of all items to predict."""
        return np.concatenate([self.event_row_P, self.request_row_Q])


def draw_targets(batch: Batch, corpus: Corpus, rng: np.random.Generator) -> Targets:
    """Collect the targets of a batch; `rng` draws which targets of a request are used."""
    is_target_E = ~batch.is_first_E & corpus.event_is_train_E[batch.events] & (batch.events >= batch.target_from_E)
    event_P = np.flatnonzero(is_target_E)
    request_Q, place_Q = _request_targets(batch, corpus, rng)
    label_C = torch.as_tensor(corpus.label_C[batch.candidates])
    return Targets(event_P, batch.row_E[event_P], request_Q, corpus.target_row_T[place_Q], label_C)


def _request_targets(batch: Batch, corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Requests of the batch (Q,) and, for each, the place in the corpus of one target (Q,)."""
    n_targets = np.diff(corpus.target_offset_R)[batch.requests]
    counts = np.minimum(n_targets, MAX_TARGETS)
    requests = np.repeat(np.arange(len(batch.requests)), counts)
    places = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (places + rng.integers(0, n_targets.clip(1))[requests]) % n_targets[requests]
    return requests, corpus.target_offset_R[batch.requests][requests] + places
