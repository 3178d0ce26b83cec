"""Which stretches of histories a batch reads: the latest events for scoring, and batches by length.

A *segment* is a stretch of one user's events with the requests made along it.

Shape suffixes: G segments, R requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lrm.tokens.corpus import Corpus


class PromptShape(NamedTuple):
    """How many tokens each group of a prompt has, and how far back a prompt reads."""

    per_event: int
    per_query: int
    """Tokens of a request, with those of the event that it reads again."""
    per_candidate: int
    max_history: int
    """Latest events with tokens of their own."""
    older_events: int = 0
    """Events before those, which are compressed."""
    memory_tokens: int = 0
    """Tokens that the older events become; none where there is no older event."""
    reread_events: int = 0
    """1 where each request reads its latest event again, at its own time, in place of that event in the history; its
    tokens are the first of the request's. Blocks that tell events the time of the next one want that
    (`lrm.model.blocks`)."""

    @property
    def soft_query(self) -> int:
        """Return the tokens that a request's signals become."""
        return self.per_query - self.reread_events * self.per_event

    @property
    def n_positions(self) -> int:
        """Return the most positions that a token can stand at."""
        return self.memory_tokens + self.max_history * self.per_event + self.per_query + self.per_candidate


class Segments(NamedTuple):
    """Stretches of histories and their requests, as arrays over segments."""

    start_G: np.ndarray
    """First event."""
    end_G: np.ndarray
    """One past the last event."""
    target_from_G: np.ndarray
    """Events from here on are next-item targets (those before were targets in another segment)."""
    request_offset_G: np.ndarray
    """(G + 1,) into `requests`."""
    requests: np.ndarray

    def pick(self, rows: np.ndarray) -> Segments:
        """The chosen segments."""
        offset, requests = gather(self.request_offset_G, rows)
        return Segments(self.start_G[rows], self.end_G[rows], self.target_from_G[rows], offset, self.requests[requests])


def scoring_segments(corpus: Corpus, requests: np.ndarray, *, max_history: int) -> Segments:
    """Give each request exactly its latest `max_history` events; requests that reach back to the start share them."""
    visible, start = corpus.visible_R[requests], corpus.user_start_R[requests]
    begin = start + (visible - max_history).clip(0)
    key = np.where(visible <= max_history, -1 - corpus.user_R[requests], np.arange(len(requests)))
    _, segment = np.unique(key, return_inverse=True)
    order = np.argsort(segment, kind="stable")
    offset = np.searchsorted(segment[order], np.arange(segment.max(initial=-1) + 2))
    first = order[offset[:-1]]
    end = np.maximum.reduceat((start + visible)[order], offset[:-1]) if len(order) else np.zeros(0, dtype=np.int64)
    return Segments(begin[first], end, end, offset, requests[order])


def older_starts(corpus: Corpus, segments: Segments, shape: PromptShape) -> np.ndarray:
    """(G,) first of the older events that a segment reads in compressed form; its own start where there are none."""
    user = np.searchsorted(corpus.user_offset_U, segments.start_G, side="right") - 1
    starts: np.ndarray = np.maximum(corpus.user_offset_U[user], segments.start_G - shape.older_events)
    return starts


def segment_tokens(corpus: Corpus, segments: Segments, shape: PromptShape) -> np.ndarray:
    """(G,) prompt length of each segment."""
    per_request = shape.per_query + shape.per_candidate * np.diff(corpus.candidate_offset_R)[segments.requests]
    total = np.concatenate([[0], np.cumsum(per_request)])
    has_older = older_starts(corpus, segments, shape) < segments.start_G
    history = (segments.end_G - segments.start_G) * shape.per_event + has_older * shape.memory_tokens
    lengths: np.ndarray = history + np.diff(total[segments.request_offset_G])
    return lengths


def token_batches(lengths: np.ndarray, *, batch_tokens: int, rng: np.random.Generator | None) -> Iterator[np.ndarray]:
    """Group rows of like length into batches of at most `batch_tokens` tokens (or one row); shuffled if given `rng`."""
    order = np.argsort(lengths, kind="stable") if rng is None else _shuffled_by_length(lengths, rng)
    ends = np.cumsum(lengths[order])
    batches, begin = [], 0
    while begin < len(order):
        spent = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, spent + batch_tokens, side="right")))
        batches.append(order[begin:end])
        begin = end
    if rng is not None:
        batches = [batches[i] for i in rng.permutation(len(batches))]
    yield from batches


def _shuffled_by_length(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lengths sorted after a jitter of about a quarter, so that neighbours are alike but not always the same."""
    jittered: np.ndarray = np.argsort(lengths * rng.uniform(0.8, 1.25, len(lengths)), kind="stable")
    return jittered


def places(counts: np.ndarray) -> np.ndarray:
    """0..n-1 for each count n, one after the other."""
    total = int(counts.sum())
    place: np.ndarray = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def gather(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """New offsets, and the flat positions, of the chosen rows of a ragged array."""
    counts = offsets[rows + 1] - offsets[rows]
    new_offsets = np.concatenate([[0], np.cumsum(counts)])
    return new_offsets, np.repeat(offsets[rows], counts) + places(counts)
