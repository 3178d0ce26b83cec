"""What a layout says of the items in a segment."""

import numpy as np

from lrm.tokens.layout import lay_out
from lrm.tokens.segments import PromptShape


def test_an_event_knows_the_first_one_of_its_item_in_its_own_segment():
    layout = lay_out(
        PromptShape(per_event=1, per_query=1, per_candidate=1, max_history=9, older_events=0, memory_tokens=0),
        n_events=np.array([5, 0, 3]),
        n_memory=np.zeros(3, dtype=np.int64),
        n_requests=np.ones(3, dtype=np.int64),
        n_candidates=np.zeros(3, dtype=np.int64),
        now_R=np.array([5, 5, 8]),
        start_G=np.array([0, 5, 5]),
        row_E=np.array([7, 2, 7, -1, -1, 2, 7, 2]),  # two items that are not in the catalogue are not the same
        event_time_E=np.zeros(8),
        request_time_R=np.zeros(3),
    )
    assert layout.first_GT.tolist() == [[0, 1, 0, 3, 4], [0] * 5, [0, 1, 0, 0, 0]]
