"""Prompts: which events, requests and candidates stand together, and which token sees which.

The prompt of a segment is

    memory tokens (older events, compressed), history tokens, then for each request: query tokens, candidate tokens.

Every event, request and candidate has a fixed number of tokens, so the length of a prompt is known beforehand. A
history token sees the memory and the events up to its own. A query token sees the events before the request and the
query tokens of that request. A candidate's token sees the same, and the tokens of the same candidate. It never sees
another candidate or another request. So one pass scores any number of candidates, each exactly as if it were alone, and
nothing known at a request reaches an earlier event. This is also why the query stands after the history, and not before
it as in 2606.19635: next-item losses at the events would otherwise read counters from the future.

If requests read their latest event again (`PromptShape.reread_events`), its tokens stand first among the query tokens,
at the positions of that event. The request and its candidates then do not see that event in the history.

Projections and feed-forward layers work on the flat tokens, without padding. Only attention pads, and not when it
trains on a GPU (`lrm.model.flex_attention`). `lrm.tokens.visibility` has the rule as a function, `lrm.tokens.layout`
the places of the tokens.

Shape suffixes: G segments, O older events, E events, R requests, C candidates of a batch (flat).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.tokens.corpus import Corpus
from lrm.tokens.layout import Layout, lay_out
from lrm.tokens.segments import (
    PromptShape,
    Segments,
    gather,
    older_starts,
    places,
    scoring_segments,
    segment_tokens,
    token_batches,
)
from lrm.tokens.signals import SignalTensors


class Older(NamedTuple):
    """Older events, which are compressed. G counts only segments that have older events."""

    identity_O: Tensor
    signals_O: SignalTensors
    slot_O: Tensor
    """Place of each event in the padded (G, n_events), the latest one at the end."""
    n_segments: int
    n_events: int


class Batch(NamedTuple):
    """The prompts of one step."""

    identity_E: Tensor
    history_E: SignalTensors
    query_R: SignalTensors
    identity_C: Tensor
    candidate_C: SignalTensors
    older: Older | None
    layout: Layout
    events: np.ndarray
    """Row in the corpus of each event."""
    row_E: np.ndarray
    """Catalogue row of each event's item, -1 where the catalogue lacks it."""
    requests: np.ndarray
    """Row in the corpus of each request."""
    candidates: np.ndarray
    """Row in the corpus of each candidate."""
    is_first_E: np.ndarray
    """Whether the event is the first of its segment, so that no event of the batch predicts it."""
    target_from_E: np.ndarray
    """The segment's `target_from`, for each event."""

    @property
    def n_tokens(self) -> int:
        """Number of tokens, without padding."""
        return len(self.layout.position_N)


def build_batch(corpus: Corpus, segments: Segments, shape: PromptShape) -> Batch:
    """Gather the signals of the segments and lay out their tokens."""
    n_events = segments.end_G - segments.start_G
    event_segment = np.repeat(np.arange(len(n_events)), n_events)
    event_place = places(n_events)
    events = segments.start_G[event_segment] + event_place
    row_E, older_start = corpus.event_row_E[events], older_starts(corpus, segments, shape)
    candidate_offset, candidates = gather(corpus.candidate_offset_R, segments.requests)
    layout = lay_out(
        shape,
        n_events=n_events,
        n_memory=np.where(older_start < segments.start_G, shape.memory_tokens, 0),
        n_requests=np.diff(segments.request_offset_G),
        n_candidates=np.diff(candidate_offset),
        now_R=corpus.user_start_R[segments.requests] + corpus.visible_R[segments.requests],
        start_G=segments.start_G,
        row_E=row_E,
        event_time_E=corpus.event_time_E[events],
        request_time_R=corpus.request_time_R[segments.requests],
    )
    return Batch(
        torch.as_tensor(corpus.event_identity_E[events]),
        corpus.history_E.take(events),
        corpus.query_R.take(segments.requests),
        torch.as_tensor(corpus.candidate_identity_C[candidates]),
        corpus.candidate_C.take(candidates),
        _older(corpus, older_start, segments.start_G, shape),
        layout,
        events,
        row_E,
        segments.requests,
        candidates,
        event_place == 0,
        segments.target_from_G[event_segment],
    )


def request_batches(corpus: Corpus, requests: np.ndarray, shape: PromptShape, *, batch_tokens: int) -> Iterator[Batch]:
    """Build prompts for requests, each over exactly its latest events, with prompts of like length together.

    Args:
        corpus: that the requests belong to.
        requests: distinct rows of the corpus.
        shape: of the prompts.
        batch_tokens: tokens of a batch at most, unless one prompt is longer.
    """
    segments = scoring_segments(corpus, requests, max_history=shape.max_history)
    lengths = segment_tokens(corpus, segments, shape)
    for rows in token_batches(lengths, batch_tokens=batch_tokens, rng=None):
        yield build_batch(corpus, segments.pick(rows), shape)


def _older(corpus: Corpus, older_start: np.ndarray, start: np.ndarray, shape: PromptShape) -> Older | None:
    counts = (start - older_start)[older_start < start]
    if not shape.memory_tokens or not len(counts):
        return None
    segment = np.repeat(np.arange(len(counts)), counts)
    events = older_start[older_start < start][segment] + places(counts)
    slot = segment * shape.older_events + (shape.older_events - counts)[segment] + places(counts)
    identity = torch.as_tensor(corpus.event_identity_E[events])
    return Older(identity, corpus.history_E.take(events), torch.as_tensor(slot), len(counts), shape.older_events)
