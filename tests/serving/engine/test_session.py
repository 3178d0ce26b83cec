"""What a loaded release holds between requests."""

import gc
import tracemalloc

import pytest

from lrm.features.store import read_kept
from lrm.serving.engine.session import get_user_states, open_session


@pytest.fixture(scope="module")
def session(world, tmp_path_factory):
    return open_session(world.release, events=tmp_path_factory.mktemp("new") / "events")


def bytes_taken(hold, held):
    """By what is held after a call; the least of three, as a server of other tests allocates in threads of its own."""
    taken = []
    for _ in range(3):
        held.clear()
        gc.collect()
        tracemalloc.start()
        hold()
        gc.collect()
        taken.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    return min(taken)


def test_users_of_whom_nothing_is_known_take_no_more_memory_than_they_count_for(session):
    get_user_states(session, range(1000, 1500))
    taken = bytes_taken(lambda: get_user_states(session, range(10**6, 10**6 + 2000)), session.user_states)
    assert len(session.user_states) == 2000
    assert taken <= session.user_states.n_bytes


@pytest.mark.parametrize("name", ["users", "items", "pairs"])
def test_values_of_the_store_take_no_more_memory_than_they_count_for(session, name):
    (view,) = [view for view in session.features.online.views if view.name == name]
    held, ids = session.features.held, {"user_id": 1, "item_id": 104}

    def hold():
        rows = [{key: ids[key] for key in view.keys}] * 1000
        for row, kept in enumerate(read_kept(session.features.online, view, rows)):
            held.put((name, *(10**6 + row for _ in view.keys)), (kept, 0.0))

    hold()
    taken = bytes_taken(hold, held)
    assert len(held) == 1000
    assert taken <= held.n_bytes
