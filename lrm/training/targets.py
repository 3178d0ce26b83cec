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
from lrm.training.cross_entropy import Seen

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


def seen_before(batch: Batch, events: np.ndarray) -> Seen:
    """List the items before each event in its segment, each once, at its first place. Events are rows of the batch."""
    start_E = np.maximum.accumulate(np.where(batch.is_first_E, np.arange(len(batch.events)), 0))
    return _seen_between(batch, start_E[events], events)


def seen_by(batch: Batch, requests: np.ndarray) -> Seen:
    """List the items that each request of the batch sees, each once."""
    layout = batch.layout
    segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    start_Q = np.searchsorted(segment_E, layout.segment_R.cpu().numpy()[requests])
    return _seen_between(batch, start_Q, start_Q + layout.visible_R.cpu().numpy()[requests])


def _seen_between(batch: Batch, start_P: np.ndarray, end_P: np.ndarray) -> Seen:
    """List the items of stretches of the batch's events; each stretch begins where a segment begins."""
    slot_E = batch.layout.event_slot_E
    first_E = batch.layout.first_GT.flatten()[slot_E]
    is_new_E = (first_E == slot_E % batch.layout.events_shape[1]).cpu().numpy()
    new, before_E = np.flatnonzero(is_new_E), np.concatenate([[0], np.cumsum(is_new_E)])
    begin_P, count_P = before_E[start_P], before_E[end_P] - before_E[start_P]
    offset = np.concatenate([[0], np.cumsum(count_P)])
    place = np.arange(offset[-1]) + np.repeat(begin_P - offset[:-1], count_P)
    row = np.repeat(np.arange(len(start_P)), count_P)
    return Seen(torch.as_tensor(offset), torch.as_tensor(batch.row_E[new[place]]), torch.as_tensor(row))
