"""A registered version as a Python function, on rows that do not all bring the same columns."""

import numpy as np
import pandas as pd
import pytest

from lrm.serving.pyfunc import Function, _load_pyfunc

ALONE = {
    "event_time": "2024-01-17T00:00:00",
    "history": [{"item_id": 100, "event_time": "2024-01-10T00:00:00", "spent": 1.0}],
    "candidates": [{"item_id": 100, "shelf": 1.0}],
}


@pytest.fixture(scope="session")
def function(world) -> Function:
    return _load_pyfunc(str(world.root / "registered-1" / "bundle"))


@pytest.mark.parametrize("mate", [{"country": "c1"}, {"age": 30.0}, {"device": "phone", "candidates": []}])
def test_a_request_is_answered_the_same_beside_one_that_brings_more_signals(function, mate):
    (alone,) = function.predict(pd.DataFrame([ALONE]))
    _, beside = function.predict(pd.DataFrame([ALONE | mate, ALONE]))
    assert beside["items"] == alone["items"]
    assert np.allclose(beside["scores"], alone["scores"], atol=1e-5)
    assert np.allclose(beside["probabilities"], alone["probabilities"], atol=1e-5)


def test_a_request_without_candidates_is_answered_beside_one_with_them(function):
    unranked = {key: value for key, value in ALONE.items() if key != "candidates"}
    ranked, listed = function.predict(pd.DataFrame([ALONE, unranked]))
    assert (len(ranked["probabilities"]), listed["probabilities"]) == (1, [])
    assert listed["items"] == function.predict(pd.DataFrame([unranked]))[0]["items"]
