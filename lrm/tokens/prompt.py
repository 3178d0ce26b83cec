"""Prompts in flat form: which events, requests and candidates stand together, and who may attend to whom.

A *segment* is a stretch of one user's events with the requests made along it. Its prompt is

    history tokens, then for each request: query tokens, candidate tokens.

A history token sees the events up to its own. The tokens of a request see the events before the request, the query
tokens of that request, and (a candidate) itself: never another candidate, never another request. So one pass scores any
number of candidates, each exactly as if it were alone, and nothing known at a request reaches an earlier event. For
that last reason the query stands after the history and not, as in 2606.19635, before it: next-item losses at the events
would otherwise read counters from the future.

Projections and feed-forward layers work on the flat valid tokens; only attention pads.

Shape suffixes: G segments, E events, R requests, C candidates of a batch (flat); T events of the longest segment;
S query and candidate tokens of the longest segment; K query tokens of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrm.tokens.corpus import Corpus
from lrm.tokens.signals import SignalTensors


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
        offset, requests = _gather(self.request_offset_G, rows)
        return Segments(self.start_G[rows], self.end_G[rows], self.target_from_G[rows], offset, self.requests[requests])


class Layout(NamedTuple):
    """Where the flat tokens of a batch stand, and what they may see."""

    history_slot_E: Tensor
    """Place of each event in the padded (G, T)."""
    suffix_slot_N: Tensor
    """Place of each query token (all requests first), then of each candidate, in the padded (G, S)."""
    position_N: Tensor
    """Rotary position of every token: events, query tokens, candidates."""
    visible_GS: Tensor
    """How many of the segment's events a query or candidate token sees."""
    request_GS: Tensor
    """Row of its request in the batch."""
    is_candidate_GS: Tensor
    segment_R: Tensor
    visible_R: Tensor
    """How many of its segment's events each request sees."""
    last_event_R: Tensor
    """Flat row of the last event visible to each request, -1 where there is none."""
    history_shape: tuple[int, int]
    """(G, T)."""
    suffix_shape: tuple[int, int]
    """(G, S)."""


class Batch(NamedTuple):
    """One step's prompts."""

    identity_E: Tensor
    history_E: SignalTensors
    query_R: SignalTensors
    identity_C: Tensor
    candidate_C: SignalTensors
    layout: Layout
    events: np.ndarray
    """Row in the corpus of each event."""
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


def training_segments(corpus: Corpus, *, max_history: int) -> Segments:
    """Cut every user's training events into windows of at most `max_history`, overlapping by half.

    A request falls into the first window that shows it at least half of `max_history`, or all there is.
    """
    stride = max(1, max_history // 2)
    starts, ends, targets, groups = [], [], [], []
    train = np.flatnonzero(corpus.split_R == 0)
    by_user = train[np.lexsort((corpus.visible_R[train], corpus.user_R[train]))]
    bounds = np.searchsorted(corpus.user_R[by_user], np.arange(len(corpus.user_offset_U)))
    for user in range(len(corpus.user_offset_U) - 1):
        first, past = corpus.user_offset_U[user], corpus.user_offset_U[user + 1]
        n_train = int(corpus.event_is_train_E[first:past].sum())
        requests = by_user[bounds[user] : bounds[user + 1]]
        visible = corpus.visible_R[requests]
        n_windows = max(1, -(-(max(n_train, visible.max(initial=0)) - max_history) // stride) + 1)
        window = (-(-(visible - max_history) // stride)).clip(0)
        for w in range(n_windows):
            begin, end = w * stride, min(w * stride + max_history, n_train)
            mine = requests[window == w]
            end = max(end, corpus.visible_R[mine].max(initial=0))
            if end - begin > 1 or len(mine):
                starts.append(first + begin)
                ends.append(first + end)
                targets.append(first + (begin + max_history - stride if w else 0))
                groups.append(mine)
    offset = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
    requests = np.concatenate(groups) if groups else np.zeros(0, dtype=np.int64)
    return Segments(
        np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), np.array(targets), offset, requests
    )


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


def segment_tokens(corpus: Corpus, segments: Segments, *, n_query_tokens: int) -> np.ndarray:
    """(G,) prompt length of each segment."""
    per_request = n_query_tokens + np.diff(corpus.candidate_offset_R)[segments.requests]
    total = np.concatenate([[0], np.cumsum(per_request)])
    lengths: np.ndarray = segments.end_G - segments.start_G + np.diff(total[segments.request_offset_G])
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


def build_batch(corpus: Corpus, segments: Segments, *, n_query_tokens: int) -> Batch:
    """Gather the segments' signals and lay their tokens out."""
    n_events = segments.end_G - segments.start_G
    n_segments, longest = len(n_events), max(1, int(n_events.max(initial=0)))
    event_segment = np.repeat(np.arange(n_segments), n_events)
    event_place = _places(n_events)
    events = segments.start_G[event_segment] + event_place
    requests = segments.requests
    request_segment = np.repeat(np.arange(n_segments), np.diff(segments.request_offset_G))
    visible = corpus.user_start_R[requests] + corpus.visible_R[requests] - segments.start_G[request_segment]
    candidate_offset, candidates = _gather(corpus.candidate_offset_R, requests)
    candidate_request = np.repeat(np.arange(len(requests)), np.diff(candidate_offset))

    query_request = np.repeat(np.arange(len(requests)), n_query_tokens)
    token_request = np.concatenate([query_request, candidate_request])
    token_segment = request_segment[token_request]
    suffix_place = _rank_within(token_segment, n_segments)
    widest = max(1, int(suffix_place.max(initial=-1)) + 1)
    suffix_slot = token_segment * widest + suffix_place
    padded = (n_segments, widest)
    request_GS = np.zeros(padded, dtype=np.int64)
    visible_GS = np.zeros(padded, dtype=np.int64)
    is_candidate_GS = np.zeros(padded, dtype=bool)
    request_GS.flat[suffix_slot] = token_request
    visible_GS.flat[suffix_slot] = visible[token_request]
    is_candidate_GS.flat[suffix_slot[len(query_request) :]] = True
    flat_start = np.cumsum(n_events) - n_events
    last_event = np.where(visible > 0, flat_start[request_segment] + visible - 1, -1)
    layout = Layout(
        history_slot_E=torch.from_numpy(event_segment * longest + event_place),
        suffix_slot_N=torch.from_numpy(suffix_slot),
        position_N=torch.from_numpy(np.concatenate([event_place, visible[token_request]])),
        visible_GS=torch.from_numpy(visible_GS),
        request_GS=torch.from_numpy(request_GS),
        is_candidate_GS=torch.from_numpy(is_candidate_GS),
        segment_R=torch.from_numpy(request_segment),
        visible_R=torch.from_numpy(visible),
        last_event_R=torch.from_numpy(last_event),
        history_shape=(n_segments, longest),
        suffix_shape=padded,
    )
    return Batch(
        torch.from_numpy(corpus.event_identity_E[events]),
        corpus.history_E.take(events),
        corpus.query_R.take(requests),
        torch.from_numpy(corpus.candidate_identity_C[candidates]),
        corpus.candidate_C.take(candidates),
        layout,
        events,
        requests,
        candidates,
        event_place == 0,
        segments.target_from_G[event_segment],
    )


def event_rows(batch: Batch, corpus: Corpus) -> np.ndarray:
    """(R, T) catalogue row of each event of a request's segment, -1 where the segment has none."""
    row_GT = np.full(batch.layout.history_shape, -1, dtype=np.int64)
    row_GT.flat[batch.layout.history_slot_E.numpy()] = corpus.event_row_E[batch.events]
    row_RT: np.ndarray = row_GT[batch.layout.segment_R.numpy()]
    return row_RT


def _places(counts: np.ndarray) -> np.ndarray:
    """0..n-1 for each count n, one after the other."""
    total = int(counts.sum())
    places: np.ndarray = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    return places


def _rank_within(group: np.ndarray, n_groups: int) -> np.ndarray:
    """The place of each element among the elements of its group, in order."""
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(group), dtype=np.int64)
    rank[order] = _places(np.bincount(group, minlength=n_groups))
    return rank


def _gather(offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """New offsets, and the flat positions, of the chosen rows of a ragged array."""
    counts = offsets[rows + 1] - offsets[rows]
    new_offsets = np.concatenate([[0], np.cumsum(counts)])
    return new_offsets, np.repeat(offsets[rows], counts) + _places(counts)
