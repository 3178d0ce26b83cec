"""What a batch has to predict: the next item at events, what follows at requests; and what each history held before.

Shape suffixes: E events, P predictions, Q predictions at requests.
"""

from __future__ import annotations

import numpy as np
import torch

from lrm.tokens.corpus import Corpus
from lrm.tokens.prompt import Batch
from lrm.training.cross_entropy import Seen

MAX_TARGETS = 8
"""Targets of a request that one step uses: neighbours in the target list from a random start."""


def event_targets(batch: Batch, corpus: Corpus) -> np.ndarray:
    """Rows of the batch's events that are next-item targets of the event before them."""
    is_target_E = ~batch.is_first_E & corpus.event_is_train_E[batch.events] & (batch.events >= batch.target_from_E)
    return np.flatnonzero(is_target_E)


def seen_before(batch: Batch, corpus: Corpus, events: np.ndarray) -> Seen:
    """The items of each target's segment before it, at their first occurrence there. Targets are rows of the batch."""
    start_E = np.maximum.accumulate(np.where(batch.is_first_E, np.arange(len(batch.events)), 0))
    return _held_between(batch, corpus, start_E[events], events)


def seen_by(batch: Batch, corpus: Corpus, requests: np.ndarray) -> Seen:
    """The items of the events that requests of the batch see, likewise."""
    layout = batch.layout
    segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    start_Q = np.searchsorted(segment_E, layout.segment_R.cpu().numpy()[requests])
    return _held_between(batch, corpus, start_Q, start_Q + layout.visible_R.cpu().numpy()[requests])


def _held_between(batch: Batch, corpus: Corpus, start_P: np.ndarray, end_P: np.ndarray) -> Seen:
    """The items of runs of the batch's events, each of which begins where a segment does."""
    row_E, slot_E = corpus.event_row_E[batch.events], batch.layout.event_slot_E
    first_E = batch.layout.first_GT.flatten()[slot_E]
    is_new_E = (first_E == slot_E % batch.layout.events_shape[1]).cpu().numpy()
    new, before_E = np.flatnonzero(is_new_E), np.concatenate([[0], np.cumsum(is_new_E)])
    begin_P, count_P = before_E[start_P], before_E[end_P] - before_E[start_P]
    offset = np.concatenate([[0], np.cumsum(count_P)])
    place = np.arange(offset[-1]) + np.repeat(begin_P - offset[:-1], count_P)
    row = np.repeat(np.arange(len(start_P)), count_P)
    return Seen(torch.as_tensor(offset), torch.as_tensor(row_E[new[place]]), torch.as_tensor(row))


def request_targets(batch: Batch, corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Requests of the batch (Q,) and, for each, the place in the corpus of one (sampled) target (Q,)."""
    n_targets = np.diff(corpus.target_offset_R)[batch.requests]
    counts = np.minimum(n_targets, MAX_TARGETS)
    requests = np.repeat(np.arange(len(batch.requests)), counts)
    places = np.arange(len(requests)) - np.repeat(np.cumsum(counts) - counts, counts)
    places = (places + rng.integers(0, n_targets.clip(1))[requests]) % n_targets[requests]
    return requests, corpus.target_offset_R[batch.requests][requests] + places
