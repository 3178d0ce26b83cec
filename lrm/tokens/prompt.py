"""Prompts in flat form: which events, requests and candidates stand together, and who may attend to whom.

The prompt of a segment is

    memory tokens (older events, compressed), history tokens, then for each request: query tokens, candidate tokens.

Every event, request and candidate has a fixed number of tokens, so the length of a prompt is known beforehand. A
history token sees the memory and the events up to its own. A query token sees the events before the request and the
query tokens of that request. A candidate's token sees those, and the tokens of the same candidate: never another
candidate, never another request. So one pass scores any number of candidates, each exactly as if it were alone, and
nothing known at a request reaches an earlier event. For that last reason the query stands after the history and not, as
in 2606.19635, before it: next-item losses at the events would otherwise read counters from the future.

Where requests read their latest event again (`PromptShape.reread_events`), its tokens stand first among the query
tokens, at that event's positions, and neither the request nor its candidates see that event in the history.

Projections and feed-forward layers work on the flat valid tokens. Only attention pads, and not where it trains on a GPU
(`lrm.model.flex_attention`). `lrm.tokens.visibility` has the rule as a function.

Shape suffixes: G segments, O older events, E events, R requests, C candidates of a batch (flat); T history tokens of
the longest segment; Q query tokens, S query and candidate tokens of the longest segment; U = T + Q; H, N flat tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.tokens.corpus import Corpus
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


class Layout(NamedTuple):
    """Where the flat tokens of a batch stand, and what they may see."""

    shape: PromptShape
    history_slot_H: Tensor
    """Place of each memory token, then of each event's tokens, in the padded (G, T)."""
    prefix_slot_N: Tensor
    """Place of each memory, event and query token in the padded (G, U): history first, then the queries."""
    suffix_slot_N: Tensor
    """Place of each query token (all requests first), then of each candidate's, in the padded (G, S)."""
    position_N: Tensor
    """Rotary position of every token: memory, events, query tokens, candidates."""
    request_N: Tensor
    """Request of each query token, then of each candidate's."""
    shown_N: Tensor
    """How many tokens of its segment's history, memory included, each of them sees."""
    bias_GSU: Tensor
    """0 where a query or candidate token sees a token of the prefix, else minus infinity."""
    event_slot_E: Tensor
    """Place of each event in the padded (G, events of the longest segment)."""
    first_GT: Tensor
    """Place in the segment of the first event of the same item, for each event in that padded form."""
    is_known_GT: Tensor
    """Whether an event stands there whose item is in the catalogue."""
    segment_R: Tensor
    visible_R: Tensor
    """How many of its segment's events each request sees."""
    last_event_R: Tensor
    """Flat row of the last event visible to each request, -1 where there is none."""
    event_time_E: np.ndarray
    """Time of each event, float64 seconds since 1970; `lrm.tokens.times` makes times of tokens of it."""
    request_time_R: np.ndarray
    """Time of each request, likewise."""
    history_shape: tuple[int, int]
    """(G, T)."""
    suffix_shape: tuple[int, int]
    """(G, S)."""
    events_shape: tuple[int, int]
    """(G, events of the longest segment)."""

    @property
    def candidate_request(self) -> Tensor:
        """(C,) request of each candidate."""
        return self.request_N[len(self.visible_R) * self.shape.per_query :: self.shape.per_candidate]


class Older(NamedTuple):
    """Events before a segment's own, to be compressed; only segments that have any are counted in G here."""

    identity_O: Tensor
    signals_O: SignalTensors
    slot_O: Tensor
    """Place of each in the padded (G, n_events), the latest at the end."""
    n_segments: int
    n_events: int


class Batch(NamedTuple):
    """One step's prompts."""

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
    """Whether the event opens its segment, so that nothing in the batch can predict it."""
    target_from_E: np.ndarray
    """The segment's `target_from`, for each event."""

    @property
    def n_tokens(self) -> int:
        """Valid tokens."""
        return len(self.layout.position_N)


def build_batch(corpus: Corpus, segments: Segments, shape: PromptShape) -> Batch:
    """Gather the segments' signals and lay their tokens out."""
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


def lay_out(
    shape: PromptShape,
    *,
    n_events: np.ndarray,
    n_memory: np.ndarray,
    n_requests: np.ndarray,
    n_candidates: np.ndarray,
    now_R: np.ndarray,
    start_G: np.ndarray,
    row_E: np.ndarray,
    event_time_E: np.ndarray,
    request_time_R: np.ndarray,
) -> Layout:
    """The places of all tokens.

    Args:
        shape: tokens of each event, request and candidate.
        n_events: (G,) events of each segment.
        n_memory: (G,) memory tokens of each segment.
        n_requests: (G,) requests of each segment.
        n_candidates: (R,) candidates of each request.
        now_R: (R,) the first event that a request does not see.
        start_G: (G,) the first event of each segment; counted as `now_R` is.
        row_E: (E,) catalogue row of each event's item, -1 where the catalogue lacks it.
        event_time_E: (E,) time of each event, float64 seconds since 1970.
        request_time_R: (R,) time of each request, likewise.
    """
    n_segments = len(n_events)
    segment = np.arange(n_segments)
    request_segment = np.repeat(segment, n_requests)
    visible = now_R - start_G[request_segment]
    own = n_events * shape.per_event
    longest, most_events = int((n_memory + own).max(initial=1)), int(n_events.max(initial=1))
    history_segment = np.concatenate([np.repeat(segment, n_memory), np.repeat(segment, own)])
    history_place = np.concatenate([places(n_memory), n_memory[np.repeat(segment, own)] + places(own)])

    query_request = np.repeat(np.arange(len(visible)), shape.per_query)
    query_segment = request_segment[query_request]
    query_place = _rank_within(query_segment, n_segments)
    widest_query = int(query_place.max(initial=-1)) + 1
    candidate_request = np.repeat(np.repeat(np.arange(len(visible)), n_candidates), shape.per_candidate)
    token_request = np.concatenate([query_request, candidate_request])
    token_segment = request_segment[token_request]
    suffix_place = _rank_within(token_segment, n_segments)
    widest = max(1, int(suffix_place.max(initial=-1)) + 1)
    suffix_slot = token_segment * widest + suffix_place

    in_history = visible if not shape.reread_events else (visible - shape.reread_events).clip(0)
    shown = (n_memory[request_segment] + in_history * shape.per_event)[token_request]
    within = np.concatenate(
        [
            np.tile(np.arange(shape.per_query), len(visible)),
            shape.per_query + np.tile(np.arange(shape.per_candidate), int(n_candidates.sum())),
        ]
    )
    n_past = longest + widest_query
    event_segment, event_place = np.repeat(segment, n_events), places(n_events)
    flat_start = np.cumsum(n_events) - n_events
    last_event = np.where(visible > 0, flat_start[request_segment] + visible - 1, -1)
    return Layout(
        shape=shape,
        history_slot_H=torch.as_tensor(history_segment * longest + history_place),
        prefix_slot_N=torch.as_tensor(
            np.concatenate([history_segment * n_past + history_place, query_segment * n_past + longest + query_place])
        ),
        suffix_slot_N=torch.as_tensor(suffix_slot),
        position_N=torch.as_tensor(np.concatenate([history_place, shown + within])),
        request_N=torch.as_tensor(token_request),
        shown_N=torch.as_tensor(shown),
        bias_GSU=_bias(
            _padded(shown, suffix_slot, (n_segments, widest), empty=0),
            _padded(token_request, suffix_slot, (n_segments, widest), empty=-1),
            _padded(query_request, query_segment * widest_query + query_place, (n_segments, widest_query), empty=-2),
            longest,
        ),
        event_slot_E=torch.as_tensor(event_segment * most_events + event_place),
        first_GT=_firsts(row_E, event_segment, event_place, (n_segments, most_events)),
        is_known_GT=_padded(
            row_E >= 0, event_segment * most_events + event_place, (n_segments, most_events), empty=0
        ).bool(),
        segment_R=torch.as_tensor(request_segment),
        visible_R=torch.as_tensor(visible),
        last_event_R=torch.as_tensor(last_event),
        event_time_E=event_time_E,
        request_time_R=request_time_R,
        history_shape=(n_segments, longest),
        suffix_shape=(n_segments, widest),
        events_shape=(n_segments, most_events),
    )


def _firsts(row_E: np.ndarray, segment_E: np.ndarray, place_E: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """(G, T) the place of the first event of the same item; items that are not in the catalogue are like no other."""
    item_E = np.where(row_E < 0, -1 - np.arange(len(row_E)), row_E)
    item_E = segment_E * (len(row_E) + item_E.max(initial=0) + 1) + item_E
    _, first_E, same_E = np.unique(item_E, return_index=True, return_inverse=True)
    return _padded(place_E[first_E[same_E]], segment_E * shape[1] + place_E, shape, empty=0)


def _bias(shown_GS: Tensor, request_GS: Tensor, query_request_GQ: Tensor, longest: int) -> Tensor:
    """(G, S, U): the visible part of the history, and the query tokens of the same request."""
    sees_history_GST = torch.arange(longest) < shown_GS.unsqueeze(-1)
    sees_query_GSQ = request_GS.unsqueeze(-1) == query_request_GQ.unsqueeze(1)
    sees_GSU = torch.cat([sees_history_GST, sees_query_GSQ], dim=-1)
    return torch.zeros(sees_GSU.shape).masked_fill_(~sees_GSU, float("-inf"))


def _padded(values: np.ndarray, slots: np.ndarray, shape: tuple[int, int], *, empty: int) -> Tensor:
    padded = np.full(shape, empty, dtype=np.int64)
    padded.flat[slots] = values
    return torch.as_tensor(padded)


def event_rows(layout: Layout, row_E: np.ndarray) -> np.ndarray:
    """(R, events) catalogue row of each event of a request's segment, -1 where the segment has none.

    Args:
        layout: of a batch.
        row_E: (E,) catalogue row of each of its events.
    """
    row_GT = np.full(layout.events_shape, -1, dtype=np.int64)
    row_GT.flat[layout.event_slot_E.cpu().numpy()] = row_E
    row_RT: np.ndarray = row_GT[layout.segment_R.cpu().numpy()]
    return row_RT


def _rank_within(group: np.ndarray, n_groups: int) -> np.ndarray:
    """The place of each element among the elements of its group, in order."""
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = places(np.bincount(group, minlength=n_groups))
    return rank
