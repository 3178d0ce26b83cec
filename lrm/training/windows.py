"""Windows over the training events that are cut anew in every epoch.

Shape suffixes: U users, G segments.
"""

from __future__ import annotations

import numpy as np

from lrm.tokens.corpus import Corpus
from lrm.tokens.segments import Segments


def shifted_windows(corpus: Corpus, *, max_history: int, rng: np.random.Generator) -> Segments:
    """Cut every user's training events into windows, the first cut drawn; requests are left out.

    There are as few windows as hold the events with room to move; events that fit into one are not cut. Windows do not
    overlap, so an epoch reads each event once; over the epochs an event is predicted from many lengths
    of history.
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
