"""The times of a prompt's tokens, worked out where a block asks for them.

Shape suffixes: N flat tokens, E events, R requests, M memory tokens, K tokens of an event.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lrm.tokens.layout import Layout


class Times(NamedTuple):
    """Two times of every token, float64 seconds since 1970."""

    own_N: np.ndarray
    """When the token happens: an event's time, or the request's for query and candidate tokens. An event that a request
    reads again keeps its own time. Memory tokens have the time of the first event after them."""
    asking_N: np.ndarray
    """When what the token predicts happens: for an event the time of the next event, for a request its own. The last
    event of a segment has its own time: no request sees what it predicts."""


def token_times(layout: Layout) -> Times:
    """Return the times of all tokens of a layout."""
    shape, time_E, time_R = layout.shape, layout.event_time_E, layout.request_time_R
    n_memory = len(layout.history_slot_H) - len(time_E) * shape.per_event
    memory_segment_M = layout.history_slot_H[:n_memory].cpu().numpy() // layout.history_shape[1]
    segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    memory_time_M = time_E[np.searchsorted(segment_E, memory_segment_M)]
    has_next_E = np.append(segment_E[1:] == segment_E[:-1], False)[: len(time_E)]
    next_E = np.where(has_next_E, np.append(time_E[1:], 0.0)[: len(time_E)], time_E)
    asks_N = time_R[layout.request_N.cpu().numpy()]
    speaks_N = asks_N.copy()
    if shape.reread_events:
        last_R = layout.last_event_R.cpu().numpy()
        read_R = np.where(last_R >= 0, np.append(time_E, 0.0)[last_R], time_R)
        n_query = len(time_R) * shape.per_query
        speaks_N[:n_query].reshape(-1, shape.per_query)[:, : shape.per_event] = read_R[:, np.newaxis]
    own, asking = np.repeat(time_E, shape.per_event), np.repeat(next_E, shape.per_event)
    return Times(np.concatenate([memory_time_M, own, speaks_N]), np.concatenate([memory_time_M, asking, asks_N]))
