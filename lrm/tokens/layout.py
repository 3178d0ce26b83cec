"""The layout of a batch: where its flat tokens stand, and what each of them may see.

`lrm.tokens.prompt` says the rule in words.

Shape suffixes: G segments, E events, R requests; T history tokens of the longest segment, or its events; Q query
tokens, S query and candidate tokens of the longest segment; U = T + Q; H, N flat tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.tokens.segments import PromptShape, places


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
    """Whether there is an event, and its item is in the catalogue."""
    segment_R: Tensor
    visible_R: Tensor
    """How many of its segment's events each request sees."""
    last_event_R: Tensor
    """Flat row of the last event visible to each request, -1 if there is none."""
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
    """Compute the places of all tokens, and what each may see.

    Args:
        shape: tokens of each event, request and candidate.
        n_events, n_memory, n_requests: (G,) events, memory tokens and requests of each segment.
        n_candidates: (R,) candidates of each request.
        now_R: (R,) the first event that a request does not see.
        start_G: (G,) the first event of each segment; counted as `now_R` is.
        row_E: (E,) catalogue row of each event's item, -1 if the catalogue lacks it.
        event_time_E, request_time_R: (E,) and (R,) float64 seconds since 1970.
    """
    n_segments, segment = len(n_events), np.arange(len(n_events))
    request_segment = np.repeat(segment, n_requests)
    visible, own = now_R - start_G[request_segment], n_events * shape.per_event
    longest, most_events = int((n_memory + own).max(initial=1)), int(n_events.max(initial=1))
    history_segment = np.concatenate([np.repeat(segment, n_memory), np.repeat(segment, own)])
    history_place = np.concatenate([places(n_memory), n_memory[np.repeat(segment, own)] + places(own)])
    suffix = _lay_out_suffix(shape, request_segment, n_candidates, n_segments)
    in_history = (visible - shape.reread_events).clip(0)
    shown = (n_memory[request_segment] + in_history * shape.per_event)[suffix.request]
    query_segment, n_past = request_segment[suffix.query_request], longest + suffix.widest_query
    query_slot = query_segment * n_past + longest + suffix.query_place
    event_segment, event_place, events_shape = np.repeat(segment, n_events), places(n_events), (n_segments, most_events)
    event_slot = event_segment * most_events + event_place
    return Layout(
        shape=shape,
        history_slot_H=torch.as_tensor(history_segment * longest + history_place),
        prefix_slot_N=torch.as_tensor(np.concatenate([history_segment * n_past + history_place, query_slot])),
        suffix_slot_N=torch.as_tensor(suffix.slot),
        position_N=torch.as_tensor(np.concatenate([history_place, shown + suffix.within])),
        request_N=torch.as_tensor(suffix.request),
        shown_N=torch.as_tensor(shown),
        bias_GSU=_bias(suffix, shown, query_segment, n_segments, longest),
        event_slot_E=torch.as_tensor(event_slot),
        first_GT=_firsts(row_E, event_segment, event_place, events_shape),
        is_known_GT=_padded(row_E >= 0, event_slot, events_shape, empty=0).bool(),
        segment_R=torch.as_tensor(request_segment),
        visible_R=torch.as_tensor(visible),
        last_event_R=torch.as_tensor(
            np.where(visible > 0, (np.cumsum(n_events) - n_events)[request_segment] + visible - 1, -1)
        ),
        event_time_E=event_time_E,
        request_time_R=request_time_R,
        history_shape=(n_segments, longest),
        suffix_shape=(n_segments, suffix.widest),
        events_shape=events_shape,
    )


class _Suffix(NamedTuple):
    """Query tokens, then candidate tokens."""

    query_request: np.ndarray
    """Request of each query token."""
    query_place: np.ndarray
    """Place of each query token among those of its segment."""
    widest_query: int
    """Query tokens of the segment that has most."""
    request: np.ndarray
    """Request of each token."""
    slot: np.ndarray
    """Place of each token in the padded (G, S)."""
    widest: int
    """S."""
    within: np.ndarray
    """Place of each token in the prompt of a single candidate, counted from the end of the history."""


def _lay_out_suffix(
    shape: PromptShape, request_segment: np.ndarray, n_candidates: np.ndarray, n_segments: int
) -> _Suffix:
    n_requests = len(request_segment)
    query_request = np.repeat(np.arange(n_requests), shape.per_query)
    query_place = _rank_within(request_segment[query_request], n_segments)
    candidate_request = np.repeat(np.repeat(np.arange(n_requests), n_candidates), shape.per_candidate)
    request = np.concatenate([query_request, candidate_request])
    place = _rank_within(request_segment[request], n_segments)
    widest = max(1, int(place.max(initial=-1)) + 1)
    within = np.concatenate(
        [
            np.tile(np.arange(shape.per_query), n_requests),
            shape.per_query + np.tile(np.arange(shape.per_candidate), int(n_candidates.sum())),
        ]
    )
    return _Suffix(
        query_request,
        query_place,
        int(query_place.max(initial=-1)) + 1,
        request,
        request_segment[request] * widest + place,
        widest,
        within,
    )


def _firsts(row_E: np.ndarray, segment_E: np.ndarray, place_E: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Find (G, T), the place of the first event of the same item. Items outside the catalogue all differ."""
    item_E = np.where(row_E < 0, -1 - np.arange(len(row_E)), row_E)
    item_E = segment_E * (len(row_E) + item_E.max(initial=0) + 1) + item_E
    _, first_E, same_E = np.unique(item_E, return_index=True, return_inverse=True)
    return _padded(place_E[first_E[same_E]], segment_E * shape[1] + place_E, shape, empty=0)


def _bias(suffix: _Suffix, shown: np.ndarray, query_segment: np.ndarray, n_segments: int, longest: int) -> Tensor:
    """Make (G, S, U): 0 for the visible part of the history and the query tokens of the same request."""
    shape, query_shape = (n_segments, suffix.widest), (n_segments, suffix.widest_query)
    shown_GS = _padded(shown, suffix.slot, shape, empty=0)
    request_GS = _padded(suffix.request, suffix.slot, shape, empty=-1)
    query_slot = query_segment * suffix.widest_query + suffix.query_place
    query_request_GQ = _padded(suffix.query_request, query_slot, query_shape, empty=-2)
    sees_history_GST = torch.arange(longest) < shown_GS.unsqueeze(-1)
    sees_query_GSQ = request_GS.unsqueeze(-1) == query_request_GQ.unsqueeze(1)
    sees_GSU = torch.cat([sees_history_GST, sees_query_GSQ], dim=-1)
    return torch.zeros(sees_GSU.shape).masked_fill_(~sees_GSU, float("-inf"))


def _padded(values: np.ndarray, slots: np.ndarray, shape: tuple[int, int], *, empty: int) -> Tensor:
    padded = np.full(shape, empty, dtype=np.int64)
    padded.flat[slots] = values
    return torch.as_tensor(padded)


def event_rows(layout: Layout, row_E: np.ndarray) -> np.ndarray:
    """Return (R, events): the catalogue row of each event of a request's segment, -1 in the padding.

    Args:
        layout: of a batch.
        row_E: (E,) catalogue row of each of its events.
    """
    row_GT = np.full(layout.events_shape, -1, dtype=np.int64)
    row_GT.flat[layout.event_slot_E.cpu().numpy()] = row_E
    row_RT: np.ndarray = row_GT[layout.segment_R.cpu().numpy()]
    return row_RT


def _rank_within(group: np.ndarray, n_groups: int) -> np.ndarray:
    """Number the elements of each group from 0, in their order."""
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = places(np.bincount(group, minlength=n_groups))
    return rank
