"""Windows: the stretches of training events that an epoch reads.

Shape suffixes: U users, G segments.
"""

from __future__ import annotations

import numpy as np

from lrm.tokens.corpus import Corpus
from lrm.tokens.segments import Segments


def overlapping_windows(corpus: Corpus, *, max_history: int) -> Segments:
    """Cut every user's training events into windows of at most `max_history`, overlapping by half.

    A training request falls into the first window that shows it at least half of `max_history`, or all its events.
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
            in_window = requests[window == w]
            end = max(end, corpus.visible_R[in_window].max(initial=0))
            if end - begin > 1 or len(in_window):
                starts.append(first + begin)
                ends.append(first + end)
                targets.append(first + (begin + max_history - stride if w else 0))
                groups.append(in_window)
    offset = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
    requests = np.concatenate(groups) if groups else np.zeros(0, dtype=np.int64)
    return Segments(
        np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), np.array(targets), offset, requests
    )


def shifted_windows(corpus: Corpus, *, max_history: int, rng: np.random.Generator) -> Segments:
    """Cut every user's training events into windows that do not overlap, and leave requests out.

    The place of the first cut is random. A user whose events fit into one window is not cut. An epoch reads each event
    once; over many epochs an event is predicted from many lengths of history.
    """
    first_U = corpus.user_offset_U[:-1]
    n_train = np.concatenate([[0], np.cumsum(corpus.event_is_train_E)])
    n_events_U = n_train[corpus.user_offset_U[1:]] - n_train[first_U]
    n_windows_U = np.where(n_events_U > max_history, n_events_U // max_history + 1, n_events_U.clip(max=1))
    spare_U = n_windows_U * max_history - n_events_U
    lead_U = np.where(n_windows_U > 1, rng.integers(0, spare_U + 1), 0)
    user_G = np.repeat(np.arange(len(first_U)), n_windows_U)
    place_G = np.arange(len(user_G)) - np.repeat(np.cumsum(n_windows_U) - n_windows_U, n_windows_U)
    begin_G = (place_G * max_history - lead_U[user_G]).clip(0)
    end_G = ((place_G + 1) * max_history - lead_U[user_G]).clip(None, n_events_U[user_G])
    is_used_G = end_G - begin_G > 1
    start_G, end_G = (first_U[user_G] + begin_G)[is_used_G], (first_U[user_G] + end_G)[is_used_G]
    none = np.zeros(0, dtype=np.int64)
    return Segments(start_G, end_G, start_G, np.zeros(len(start_G) + 1, dtype=np.int64), none)
