"""Tokens have the times of their events and requests."""

import numpy as np

from lrm.tokens.layout import lay_out
from lrm.tokens.segments import PromptShape
from lrm.tokens.times import token_times

SHAPE = PromptShape(per_event=1, per_query=1, per_candidate=1, max_history=9)


def times_of(shape, **changed):
    """Two users, of 2 events (at 10 and 20) and 1 event (at 30); a request of each, at 25 and at 30.5."""
    asked = {
        "n_events": np.array([2, 1]),
        "n_memory": np.array([0, 0]),
        "n_requests": np.array([1, 1]),
        "n_candidates": np.array([1, 0]),
        "now_R": np.array([2, 3]),
        "start_G": np.array([0, 2]),
        "row_E": np.arange(3),
        "event_time_E": np.array([10.0, 20.0, 30.0]),
        "request_time_R": np.array([25.0, 30.5]),
    }
    return [times_N.tolist() for times_N in token_times(lay_out(shape, **asked | changed))]


def test_an_event_asks_at_the_time_of_the_next_one_of_its_user_and_a_request_at_its_own():
    own, asking = times_of(SHAPE)
    assert own == [10, 20, 30, 25, 30.5, 25]
    assert asking == [20, 20, 30, 25, 30.5, 25]


def test_an_event_read_again_keeps_its_time_and_asks_at_that_of_the_request():
    own, asking = times_of(SHAPE._replace(reread_events=1))
    assert own == [10, 20, 30, 20, 30, 25]
    assert asking == [20, 20, 30, 25, 30.5, 25]


def test_a_request_without_history_reads_nothing_of_before_its_own_time():
    own, _ = times_of(SHAPE._replace(reread_events=1), now_R=np.array([0, 3]))
    assert own[3] == 25


def test_memory_has_the_time_of_the_first_event_after_it():
    own, asking = times_of(SHAPE._replace(older_events=4, memory_tokens=2), n_memory=np.array([0, 2]))
    assert own[:2] == asking[:2] == [30, 30]
    assert own[2:] == [10, 20, 30, 25, 30.5, 25]


def test_several_tokens_of_an_event_share_its_times():
    own, asking = times_of(SHAPE._replace(per_event=2))
    assert own[:6] == [10, 10, 20, 20, 30, 30]
    assert asking[:6] == [20, 20, 20, 20, 30, 30]
