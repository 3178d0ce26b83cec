"""The times of a prompt's tokens, worked out where a block asks for them.

Shape suffixes: N flat tokens, E events, R requests, M memory tokens.
"""

from __future__ import annotations

import numpy as np

from lrm.tokens.prompt import Layout


def token_times(layout: Layout) -> np.ndarray:
    """Return (N,) float64 seconds since 1970: when each token happens.

    An event's tokens have the event's time, query and candidate tokens the request's. Memory tokens stand for events
    before the first of their segment, and have its time.
    """
    shape, event_time_E = layout.shape, layout.event_time_E
    n_memory = len(layout.history_slot_H) - len(event_time_E) * shape.per_event
    memory_segment_M = layout.history_slot_H[:n_memory].cpu().numpy() // layout.history_shape[1]
    event_segment_E = layout.event_slot_E.cpu().numpy() // layout.events_shape[1]
    first_M = np.searchsorted(event_segment_E, memory_segment_M)
    times: np.ndarray = np.concatenate(
        [
            event_time_E[first_M],
            np.repeat(event_time_E, shape.per_event),
            layout.request_time_R[layout.request_N.cpu().numpy()],
        ]
    )
    return times
